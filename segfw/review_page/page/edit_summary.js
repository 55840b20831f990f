// What was changed, in numbers: voxels and sizes of each structure before and after.

/** Voxels of each value; index is the value. */
export function counts(values) {
  const found = new Float64Array(256);
  for (let index = 0; index < values.length; index += 1) {
    found[values[index]] += 1;
  }
  return found;
}

/** In what sizes are told: a photograph has no millimetres. ``each`` is that of one voxel. */
export function sizeUnit(isPicture, spacing_mm) {
  return isPicture ? { unit: "px", each: 1, digits: 0 } : { unit: "ml", each: (spacing_mm[0] * spacing_mm[1] * spacing_mm[2]) / 1000, digits: 2 };
}

/**
 * For each structure that either mask holds: sizes before and after in that unit, voxels added and removed.
 * @param {number} each size of one voxel
 * @param {{index: number, label: string}[]} structures
 */
export function summaryOfEdits(before, after, each, structures) {
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
  return structures
    .filter(({ index }) => countsBefore[index] > 0 || countsAfter[index] > 0)
    .map(({ index, label }) => ({
      index,
      label,
      before: countsBefore[index] * each,
      after: countsAfter[index] * each,
      added: added[index],
      removed: removed[index],
    }));
}
