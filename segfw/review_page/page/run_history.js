// Undo and redo as run-length differences: what a change has overwritten, in the order in which it was written.
// A run is five numbers: its first voxel, how many, how far apart, the value before, the value after.

const NUMBERS_OF_A_RUN = 5;
const NO_RUNS = new Int32Array(0);

/** A list of runs that grows. */
export class RunRecorder {
  constructor() {
    this.numbers = new Int32Array(NUMBERS_OF_A_RUN * 256);
    this.length = 0;
  }

  add(start, count, stride, before, after) {
    if (this.length + NUMBERS_OF_A_RUN > this.numbers.length) {
      const larger = new Int32Array(this.numbers.length * 2);
      larger.set(this.numbers);
      this.numbers = larger;
    }
    this.numbers.set([start, count, stride, before, after], this.length);
    this.length += NUMBERS_OF_A_RUN;
  }

  /** The runs so far, without spare room. */
  runs() {
    return this.numbers.slice(0, this.length);
  }
}

/** Puts back what stood before the runs were written: the last one first, because runs may overlap. */
export function undoRuns(values, runs) {
  for (let at = runs.length - NUMBERS_OF_A_RUN; at >= 0; at -= NUMBERS_OF_A_RUN) {
    writeRun(values, runs, at, runs[at + 3]);
  }
}

/** Writes the runs once more. */
export function redoRuns(values, runs) {
  for (let at = 0; at < runs.length; at += NUMBERS_OF_A_RUN) {
    writeRun(values, runs, at, runs[at + 4]);
  }
}

function writeRun(values, runs, at, value) {
  const end = runs[at] + runs[at + 1] * runs[at + 2];
  for (let index = runs[at]; index < end; index += runs[at + 2]) {
    values[index] = value;
  }
}

/**
 * Changes that can be taken back and made again. Of the oldest, where all take more than ``mostBytes``, the runs are
 * forgotten: they can no longer be taken back, but they still stand.
 */
export class RunHistory {
  constructor(mostBytes = 128_000_000) {
    this.mostBytes = mostBytes;
    this.done = [];
    this.undone = [];
    this.settled = [];
  }

  /** All changes that are in the mask, the oldest first. */
  get standing() {
    return [...this.settled, ...this.done];
  }

  /** ``change`` holds ``runs`` and whatever else is to be handed back. A new change makes what was undone unreachable. */
  push(change) {
    this.undone = [];
    this.done.push(change);
    let bytes = this.done.reduce((sum, each) => sum + each.runs.byteLength, 0);
    while (bytes > this.mostBytes && this.done.length > 1) {
      const oldest = this.done.shift();
      bytes -= oldest.runs.byteLength;
      oldest.runs = NO_RUNS; // whoever still holds the change holds no memory with it
      this.settled.push(oldest);
    }
  }

  undo(values) {
    const change = this.done.pop();
    if (change === undefined) {
      return null;
    }
    undoRuns(values, change.runs);
    this.undone.push(change);
    return change;
  }

  redo(values) {
    const change = this.undone.pop();
    if (change === undefined) {
      return null;
    }
    redoRuns(values, change.runs);
    this.done.push(change);
    return change;
  }

  get canUndo() {
    return this.done.length > 0;
  }

  get canRedo() {
    return this.undone.length > 0;
  }

  clear() {
    this.done = [];
    this.undone = [];
    this.settled = [];
  }
}
