// The three planes of a volume in RAS order: which axes they show, which letters stand at their edges, and words for sides.
// Axes are numbers: 0 is x, 1 is y, 2 is z. In RAS order an index along x grows towards the patient's right side.

export const PLANES = {
  axial: { across: 0, up: 1, through: 2 },
  coronal: { across: 0, up: 2, through: 1 },
  sagittal: { across: 1, up: 2, through: 0 },
};

export const PLANE_NAMES = Object.keys(PLANES);

/** Letters of the patient's sides at the edges of a plane as it is shown. Sagittal planes look to the left: nose left. */
export function edgeLetters(plane, isRadiological) {
  if (plane === "sagittal") {
    return { left: "A", right: "P", top: "S", bottom: "I" };
  }
  const sides = isRadiological ? { left: "R", right: "L" } : { left: "L", right: "R" };
  const ends = plane === "axial" ? { top: "A", bottom: "P" } : { top: "S", bottom: "I" };
  return { ...sides, ...ends };
}

/** Whether an index that grows along the plane's first axis goes to the right of the screen. */
export function growsToTheRight(plane, isRadiological) {
  return plane === "sagittal" ? false : !isRadiological;
}

/** "left", "right" or "middle": towards which of the patient's sides an index along x lies in a volume in RAS order. Of the
 * image, which may hold one side of the body alone. */
export function patientSide(x, width) {
  const middle = (width - 1) / 2;
  if (Math.abs(x - middle) < 0.5) {
    return "middle";
  }
  return x < middle ? "left" : "right";
}

/** Number of voxels along one axis, without leaving the volume. */
export function clampIndex(index, size) {
  return Math.max(0, Math.min(size - 1, index));
}

/** The values of one slice, as rows of the plane's first axis. */
export function sliceValues(values, dims, plane, slice) {
  const { across, up, through } = PLANES[plane];
  const strides = [1, dims[0], dims[0] * dims[1]];
  const width = dims[across];
  const height = dims[up];
  const out = new values.constructor(width * height);
  const start = slice * strides[through];
  for (let row = 0; row < height; row += 1) {
    let from = start + row * strides[up];
    const to = row * width;
    if (strides[across] === 1) {
      out.set(values.subarray(from, from + width), to);
    } else {
      for (let column = 0; column < width; column += 1) {
        out[to + column] = values[from];
        from += strides[across];
      }
    }
  }
  return { values: out, width, height };
}

/** Where a place of the volume lies in a picture, in pixels of the canvas; edges of voxels are whole numbers. */
export function placeIn(tile, across, up) {
  const [a0, a1] = tile.acrossEdges;
  const [u0, u1] = tile.upEdges;
  const x = tile.left + ((across - a0) / (a1 - a0)) * tile.width;
  const y = tile.top + (1 - (up - u0) / (u1 - u0)) * tile.height;
  return [x, y];
}
