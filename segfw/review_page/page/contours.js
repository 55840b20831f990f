// Outlines of labels in one slice, along the edges of voxels, as closed lines.

/**
 * Outlines of each label: a Map of label to closed lines. A line is a list of corners [column, row] on the grid of voxel
 * edges, where (0, 0) is the outer corner of the first voxel; straight stretches are one step.
 */
export function outlines(values, width, height) {
  const edges = edgesByLabel(values, width, height);
  const found = new Map();
  for (const [label, starts] of edges) {
    found.set(label, closedLines(starts, width + 1));
  }
  return found;
}

/** For each label a Map of corner to the corners that follow it; the label lies on the same side of all its edges. */
function edgesByLabel(values, width, height) {
  const edges = new Map();
  const corners = width + 1;
  const add = (label, from, to) => {
    if (!edges.has(label)) {
      edges.set(label, new Map());
    }
    const starts = edges.get(label);
    const known = starts.get(from);
    starts.set(from, known === undefined ? [to] : [...known, to]);
  };
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const label = values[row * width + column];
      if (label === 0) {
        continue;
      }
      const corner = row * corners + column;
      if (row === 0 || values[(row - 1) * width + column] !== label) {
        add(label, corner, corner + 1);
      }
      if (column === width - 1 || values[row * width + column + 1] !== label) {
        add(label, corner + 1, corner + 1 + corners);
      }
      if (row === height - 1 || values[(row + 1) * width + column] !== label) {
        add(label, corner + 1 + corners, corner + corners);
      }
      if (column === 0 || values[row * width + column - 1] !== label) {
        add(label, corner + corners, corner);
      }
    }
  }
  return edges;
}

function closedLines(starts, corners) {
  const lines = [];
  for (const start of starts.keys()) {
    while (starts.get(start).length > 0) {
      lines.push(lineFrom(starts, start, corners));
    }
  }
  return lines;
}

function lineFrom(starts, start, corners) {
  const line = [];
  let at = start;
  let direction = 0;
  do {
    const ways = starts.get(at);
    // Where two voxels touch at a corner alone, turning stays with the voxel that the line came along.
    const turn = ways.length > 1 ? ways.findIndex((to) => isRightTurn(direction, to - at, corners)) : 0;
    const [to] = ways.splice(Math.max(0, turn), 1);
    if (to - at !== direction) {
      line.push([at % corners, Math.floor(at / corners)]);
    }
    direction = to - at;
    at = to;
  } while (at !== start);
  return line;
}

function isRightTurn(before, after, corners) {
  const turns = new Map([[1, corners], [corners, -1], [-1, -corners], [-corners, 1]]);
  return turns.get(before) === after;
}
