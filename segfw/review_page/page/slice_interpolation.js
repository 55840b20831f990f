// The shape of a structure between two slices: signed distances in mm are mixed, and what is inside of 0 is kept.

const FAR = 1e20;

/** Squared distances along one line to its nearest zero, by the lower envelope of parabolas (Felzenszwalb and Huttenlocher 2012). */
function distancesOfLine(line, count, spacing) {
  const square = spacing * spacing;
  const roots = new Int32Array(count);
  const borders = new Float64Array(count + 1);
  const out = new Float64Array(count);
  let last = 0;
  borders[0] = -FAR;
  borders[1] = FAR;
  for (let at = 1; at < count; at += 1) {
    let border = crossing(line, roots[last], at, square);
    while (last > 0 && border <= borders[last]) {
      last -= 1;
      border = crossing(line, roots[last], at, square);
    }
    if (border > borders[last]) {
      last += 1;
    }
    roots[last] = at;
    borders[last] = last === 0 ? -FAR : border;
    borders[last + 1] = FAR;
  }
  let root = 0;
  for (let at = 0; at < count; at += 1) {
    while (borders[root + 1] < at) {
      root += 1;
    }
    out[at] = square * (at - roots[root]) ** 2 + line[roots[root]];
  }
  return out;
}

function crossing(line, first, second, square) {
  return (line[second] + square * second * second - line[first] - square * first * first) / (2 * square * (second - first));
}

/** Distance in mm from each pixel to the nearest pixel that is 1 in ``mask``; ``FAR`` squared where there is none. */
export function distanceTo(mask, width, height, spacing_mm) {
  const squares = new Float64Array(width * height);
  for (let index = 0; index < squares.length; index += 1) {
    squares[index] = mask[index] ? 0 : FAR;
  }
  for (let row = 0; row < height; row += 1) {
    const line = squares.slice(row * width, (row + 1) * width);
    squares.set(distancesOfLine(line, width, spacing_mm[0]), row * width);
  }
  const column = new Float64Array(height);
  for (let across = 0; across < width; across += 1) {
    for (let row = 0; row < height; row += 1) {
      column[row] = squares[row * width + across];
    }
    const distances = distancesOfLine(column, height, spacing_mm[1]);
    for (let row = 0; row < height; row += 1) {
      squares[row * width + across] = distances[row];
    }
  }
  return squares.map(Math.sqrt);
}

/** Negative inside of the mask, positive outside. */
export function signedDistance(mask, width, height, spacing_mm) {
  const outside = distanceTo(mask, width, height, spacing_mm);
  const inverse = mask.map((value) => (value ? 0 : 1));
  const inside = distanceTo(inverse, width, height, spacing_mm);
  return outside.map((value, index) => value - inside[index]);
}

/** Masks of the ``between`` slices that lie evenly between two masks of the same size. */
export function slicesBetween(first, second, size, between, spacing_mm) {
  const [width, height] = size;
  const from = signedDistance(first, width, height, spacing_mm);
  const to = signedDistance(second, width, height, spacing_mm);
  const masks = [];
  for (let step = 1; step <= between; step += 1) {
    const share = step / (between + 1);
    const mask = new Uint8Array(width * height);
    for (let index = 0; index < mask.length; index += 1) {
      mask[index] = from[index] * (1 - share) + to[index] * share <= 0 ? 1 : 0;
    }
    masks.push(mask);
  }
  return masks;
}

/**
 * Which pairs of slices are to be filled between, of those that a hand has drawn (sorted) or else the nearest two around
 * ``current`` that hold the structure with nothing in between.
 */
export function pairsToFill(drawn, current, holds) {
  const pairs = [];
  for (let at = 1; at < drawn.length; at += 1) {
    if (drawn[at] - drawn[at - 1] > 1) {
      pairs.push([drawn[at - 1], drawn[at]]);
    }
  }
  if (pairs.length > 0 || holds[current]) {
    return pairs;
  }
  const below = holds.lastIndexOf(true, current);
  const above = holds.indexOf(true, current);
  return below >= 0 && above >= 0 ? [[below, above]] : [];
}
