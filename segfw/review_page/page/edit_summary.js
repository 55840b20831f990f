// What was changed, in numbers: voxels and millilitres of each structure before and after.

/** Voxels of each value; index is the value. */
export function counts(values) {
  const found = new Float64Array(256);
  for (let index = 0; index < values.length; index += 1) {
    found[values[index]] += 1;
  }
  return found;
}

/**
 * For each structure that either mask holds: volumes before and after in ml, voxels added and removed.
 * @param {{index: number, label: string}[]} structures
 */
export function summaryOfEdits(before, after, spacing_mm, structures) {
  const added = new Float64Array(256);
  const removed = new Float64Array(256);
  for (let index = 0; index < before.length; index += 1) {
    if (before[index] !== after[index]) {
      removed[before[index]] += 1;
      added[after[index]] += 1;
    }
  }
  const countsBefore = counts(before);
  const countsAfter = counts(after);
  const millilitres = (spacing_mm[0] * spacing_mm[1] * spacing_mm[2]) / 1000;
  return structures
    .filter(({ index }) => countsBefore[index] > 0 || countsAfter[index] > 0)
    .map(({ index, label }) => ({
      index,
      label,
      before_ml: countsBefore[index] * millilitres,
      after_ml: countsAfter[index] * millilitres,
      added: added[index],
      removed: removed[index],
    }));
}
