// The shape of a brush in millimetres, as rows of voxels around its centre.

/**
 * Rows of a disc: for each step along the second axis, how many voxels to either side along the first belong to it.
 * A voxel belongs if its centre is at most the radius away; the centre's own voxel always does.
 */
export function discRows(radius_mm, acrossSpacing_mm, upSpacing_mm) {
  const rows = [];
  const reach = Math.floor(radius_mm / upSpacing_mm + 1e-6);
  for (let step = -reach; step <= reach; step += 1) {
    const left = radius_mm * radius_mm - (step * upSpacing_mm) ** 2;
    const half = Math.floor(Math.sqrt(Math.max(0, left)) / acrossSpacing_mm + 1e-6);
    rows.push({ step, half });
  }
  return rows;
}

/** Rows of a ball: a disc for each step along the third axis. */
export function ballRows(radius_mm, spacing_mm) {
  const [across, up, through] = spacing_mm;
  const rows = [];
  const reach = Math.floor(radius_mm / through + 1e-6);
  for (let depth = -reach; depth <= reach; depth += 1) {
    const left = radius_mm * radius_mm - (depth * through) ** 2;
    for (const row of discRows(Math.sqrt(Math.max(0, left)), across, up)) {
      rows.push({ depth, step: row.step, half: row.half });
    }
  }
  return rows;
}

/** Places at which a brush is put down between two positions of the pointer, so that no gap is left; the first is left out. */
export function placesBetween(from, to) {
  const steps = Math.max(...from.map((value, axis) => Math.abs(to[axis] - value)));
  const places = [];
  for (let step = 1; step <= steps; step += 1) {
    places.push(from.map((value, axis) => Math.round(value + ((to[axis] - value) * step) / steps)));
  }
  return places;
}

/** The next size of a brush in mm, larger or smaller by about a fifth and at least by one step of 0.5. */
export function nextRadius(radius_mm, isLarger, most_mm = 100) {
  const step = Math.max(0.5, Math.round(radius_mm * 0.4) / 2);
  const next = isLarger ? radius_mm + step : radius_mm - step;
  return Math.max(0.5, Math.min(most_mm, Math.round(next * 2) / 2));
}
