// Fills what an outline encloses in one slice.

/** 1 for each pixel that is not in the mask and cannot be reached from the slice's edge (steps along rows and columns). */
export function enclosed(mask, width, height) {
  const isOutside = new Uint8Array(width * height);
  const waiting = [];
  const visit = (column, row) => {
    const index = row * width + column;
    if (column >= 0 && row >= 0 && column < width && row < height && !mask[index] && !isOutside[index]) {
      isOutside[index] = 1;
      waiting.push(index);
    }
  };
  for (let column = 0; column < width; column += 1) {
    visit(column, 0);
    visit(column, height - 1);
  }
  for (let row = 0; row < height; row += 1) {
    visit(0, row);
    visit(width - 1, row);
  }
  while (waiting.length > 0) {
    const index = waiting.pop();
    const column = index % width;
    const row = (index - column) / width;
    visit(column - 1, row);
    visit(column + 1, row);
    visit(column, row - 1);
    visit(column, row + 1);
  }
  return mask.map((value, index) => (!value && !isOutside[index] ? 1 : 0));
}
