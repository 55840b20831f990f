// All that changes voxels of the mask. No picture and no page: arrays alone, so that each tool can be tested by counting.

import { ballRows, discRows } from "./brush.js";
import { enclosed } from "./hole_filling.js";
import { PLANES, sliceValues } from "./planes.js";
import { RunHistory, RunRecorder } from "./run_history.js";
import { pairsToFill, slicesBetween } from "./slice_interpolation.js";

export const ANYWHERE = "anywhere";
export const INSIDE = "inside";
export const OUTSIDE = "outside";
export const IN_WINDOW = "window";
export const REFINED = "refine"; // the name of changes that the refiner has answered
export const PLACES = [ANYWHERE, INSIDE, OUTSIDE, IN_WINDOW];

/** Labels of voxels that make a structure, in a group: more than one for nested regions. */
export function labelsOf(structures, index, group) {
  const structure = structures.find((each) => each.index === index);
  const parts = (structure?.parts ?? []).filter(([of]) => of === group).map(([, label]) => label);
  return parts.length > 0 ? parts : [index];
}

/**
 * Labels of a structure and of those that share labels with it. A voxel of these may become another one of them without
 * a loss for anybody: what joins the core of a tumour stays in the whole of it.
 */
export function labelsAround(structures, index, group) {
  const own = labelsOf(structures, index, group);
  const around = structures.map((each) => labelsOf([each], each.index, group));
  return [...new Set([...own, ...around.filter((labels) => labels.some((label) => own.includes(label))).flat()])];
}

export class MaskEditor {
  /**
   * @param {Uint8Array} values of the mask, x fastest; they are changed in place
   * @param {number[]} dims voxels along x, y, z
   * @param {number[]} spacing_mm along x, y, z
   * @param {ArrayLike<number>|null} intensities in the same order, for painting inside of a window
   */
  constructor(values, dims, spacing_mm, intensities = null) {
    this.values = values;
    this.dims = dims;
    this.spacing_mm = spacing_mm;
    this.intensities = intensities;
    this.strides = [1, dims[0], dims[0] * dims[1]];
    this.history = new RunHistory();
    this.rules = { label: 1, isLocked: true, place: ANYWHERE, placeLabel: 0, low: -Infinity, high: Infinity };
    this.revision = 0;
    this.change = null;
    this.drawnSlices = new Map();
    this.unseenBox = null;
  }

  /** Begins one change: all that follows until ``end`` is undone at once. */
  begin(name, label = this.rules.label) {
    this.change = { name, recorder: new RunRecorder(), box: null, added: 0, removed: 0, label };
  }

  /** Ends the change; null if no voxel was changed. */
  end() {
    const { name, recorder, box, added, removed, label } = this.change;
    this.change = null;
    if (recorder.length === 0) {
      return null;
    }
    const done = { name, runs: recorder.runs(), box, added, removed, label };
    this.history.push(done);
    return done;
  }

  undo() {
    return this.#seen(this.history.undo(this.values));
  }

  redo() {
    return this.#seen(this.history.redo(this.values));
  }

  #seen(change) {
    if (change !== null) {
      this.#touch(change.box);
    }
    return change;
  }

  /** The box of voxels that changed since it was last asked for, as [first, behind the last] for x, y, z; null if none did. */
  takeChangedBox() {
    const box = this.unseenBox;
    this.unseenBox = null;
    return box;
  }

  /** Puts a brush down once. ``shape`` is "disc" (in the plane) or "ball". */
  dab(plane, centre, radius_mm, shape, isErasing) {
    const value = isErasing ? 0 : this.rules.label;
    const { across, up, through } = PLANES[plane];
    const table = this.#mayBecome(value);
    if (shape === "ball") {
      for (const { depth, step, half } of ballRows(radius_mm, this.spacing_mm)) {
        this.#row([centre[0], centre[1] + step, centre[2] + depth], 0, half, value, table);
      }
    } else {
      for (const { step, half } of discRows(radius_mm, this.spacing_mm[across], this.spacing_mm[up])) {
        const place = [...centre];
        place[up] += step;
        this.#row(place, across, half, value, table);
      }
    }
    this.#rememberSlice(plane, centre[through]);
  }

  /** Fills what the structure encloses in one slice. */
  fillHoles(plane, slice) {
    const mask = this.#sliceMask(plane, slice);
    const holes = enclosed(mask.values, mask.width, mask.height);
    this.#writeSlice(plane, slice, holes, this.rules.label);
    this.#rememberSlice(plane, slice);
  }

  /**
   * Fills the slices between those that were drawn by hand, or across the gap around ``current``. Returns how many slices.
   */
  interpolate(plane, current) {
    const { across, up, through } = PLANES[plane];
    const holds = this.#slicesThatHold(plane);
    const drawn = this.drawn(plane).filter((slice) => holds[slice]);
    let filled = 0;
    for (const [first, second] of pairsToFill(drawn, current, holds)) {
      const from = this.#sliceMask(plane, first);
      const to = this.#sliceMask(plane, second);
      const spacing_mm = [this.spacing_mm[across], this.spacing_mm[up]];
      const masks = slicesBetween(from.values, to.values, [from.width, from.height], second - first - 1, spacing_mm);
      masks.forEach((mask, step) => this.#replaceSlice(plane, first + 1 + step, mask));
      filled += masks.length;
    }
    this.drawnSlices.delete(this.#drawnKey(plane));
    return filled;
  }

  /** Puts one candidate in the place of the structure inside of a box: ``box`` as [first, behind the last] for x, y, z. */
  takeCandidate(box, mask) {
    const [xs, ys, zs] = box;
    const paint = this.#mayBecome(this.rules.label);
    const erase = this.#mayBecome(0);
    let at = 0;
    for (let z = zs[0]; z < zs[1]; z += 1) {
      for (let y = ys[0]; y < ys[1]; y += 1) {
        const row = z * this.strides[2] + y * this.strides[1];
        for (let x = xs[0]; x < xs[1]; x += 1) {
          const index = row + x;
          if (mask[at]) {
            this.#write(index, 1, 1, this.rules.label, paint);
          } else if (this.values[index] === this.rules.label) {
            this.#write(index, 1, 1, 0, erase);
          }
          at += 1;
        }
      }
    }
    this.#growBox(xs[0], xs[1], ys[0], ys[1], zs[0], zs[1]);
  }

  /**
   * Puts values of a box in their place: ``box`` as [first, behind the last] for x, y, z. Voxels that are neither empty
   * nor of the labels ``own``, which are those of ``labelsAround`` a structure, stay, unless ``mayOverwrite``.
   */
  takeValues(box, given, own, mayOverwrite) {
    const [xs, ys, zs] = box;
    const { values } = this;
    let at = 0;
    for (let z = zs[0]; z < zs[1]; z += 1) {
      for (let y = ys[0]; y < ys[1]; y += 1) {
        const row = z * this.strides[2] + y * this.strides[1];
        let x = xs[0];
        while (x < xs[1]) {
          const start = row + x;
          const before = values[start];
          const after = given[at];
          let count = 1;
          while (x + count < xs[1] && values[start + count] === before && given[at + count] === after) {
            count += 1;
          }
          if (before !== after && (before === 0 || mayOverwrite || own.includes(before))) {
            values.fill(after, start, start + count);
            this.#note(start, count, 1, before, after);
            this.#growBox(x, x + count, y, y + 1, z, z + 1);
          }
          x += count;
          at += count;
        }
      }
    }
  }

  /** Takes every voxel of a label away. */
  eraseAll(label) {
    const table = new Uint8Array(256);
    table[label] = 1;
    const [width, height, depth] = this.dims;
    for (let z = 0; z < depth; z += 1) {
      for (let y = 0; y < height; y += 1) {
        this.#span([0, y, z], 0, width, 0, table);
      }
    }
  }

  /** Slices of a plane in which the structure was drawn by hand since slices were last filled. */
  drawn(plane) {
    return [...(this.drawnSlices.get(this.#drawnKey(plane)) ?? [])].sort((a, b) => a - b);
  }

  #drawnKey(plane) {
    return `${plane} ${this.rules.label}`;
  }

  #rememberSlice(plane, slice) {
    const key = this.#drawnKey(plane);
    if (!this.drawnSlices.has(key)) {
      this.drawnSlices.set(key, new Set());
    }
    this.drawnSlices.get(key).add(slice);
  }

  /** For each value that a voxel may have: 1 if it may become ``value``. */
  #mayBecome(value) {
    const { label, isLocked, place, placeLabel } = this.rules;
    const table = new Uint8Array(256);
    for (let before = 0; before < 256; before += 1) {
      const isFree = before === 0 || before === label || !isLocked || (place === INSIDE && before === placeLabel);
      const isThere = (place !== INSIDE || before === placeLabel) && (place !== OUTSIDE || before !== placeLabel);
      // Of its own structure one may always erase: only painting is kept inside or outside of others.
      const isPlace = value === 0 ? true : isThere;
      table[before] = before !== value && isFree && isPlace ? 1 : 0;
    }
    return table;
  }

  #row(place, axis, half, value, table) {
    const { dims } = this;
    for (let other = 0; other < 3; other += 1) {
      if (other !== axis && (place[other] < 0 || place[other] >= dims[other])) {
        return;
      }
    }
    const first = Math.max(0, place[axis] - half);
    const last = Math.min(dims[axis] - 1, place[axis] + half);
    if (last < first) {
      return;
    }
    const start = [...place];
    start[axis] = first;
    this.#span(start, axis, last - first + 1, value, table);
  }

  /** Writes ``count`` voxels along an axis, all of them inside of the volume. */
  #span(place, axis, count, value, table) {
    const { strides } = this;
    const start = place[0] * strides[0] + place[1] * strides[1] + place[2] * strides[2];
    if (this.#write(start, count, strides[axis], value, table)) {
      const end = place.map((index, other) => index + (other === axis ? count : 1));
      this.#growBox(place[0], end[0], place[1], end[1], place[2], end[2]);
    }
  }

  /** Writes what may be written of a row and notes it as runs of one former value; whether anything was. */
  #write(start, count, stride, value, table) {
    const { values } = this;
    const isWindow = this.rules.place === IN_WINDOW && value !== 0 && this.intensities !== null;
    const end = start + count * stride;
    let runStart = -1;
    let runValue = 0;
    let isChanged = false;
    for (let index = start; index < end; index += stride) {
      const before = values[index];
      const isAllowed = table[before] === 1 && (!isWindow || this.#isInWindow(index));
      if (runStart >= 0 && (!isAllowed || before !== runValue)) {
        this.#note(runStart, (index - runStart) / stride, stride, runValue, value);
        runStart = -1;
      }
      if (isAllowed) {
        values[index] = value;
        isChanged = true;
        if (runStart < 0) {
          runStart = index;
          runValue = before;
        }
      }
    }
    if (runStart >= 0) {
      this.#note(runStart, (end - runStart) / stride, stride, runValue, value);
    }
    return isChanged;
  }

  #isInWindow(index) {
    const intensity = this.intensities[index];
    return intensity >= this.rules.low && intensity <= this.rules.high;
  }

  #note(start, count, stride, before, after) {
    this.change.recorder.add(start, count, stride, before, after);
    if (after === this.change.label) {
      this.change.added += count;
    }
    if (before === this.change.label) {
      this.change.removed += count;
    }
  }

  #growBox(x0, x1, y0, y1, z0, z1) {
    const box = [[x0, x1], [y0, y1], [z0, z1]];
    this.change.box = joined(this.change.box, box);
    this.#touch(box);
  }

  #touch(box) {
    this.unseenBox = joined(this.unseenBox, box);
    this.revision += 1;
  }

  #sliceMask(plane, slice) {
    const found = sliceValues(this.values, this.dims, plane, slice);
    const values = found.values.map((value) => (value === this.rules.label ? 1 : 0));
    return { values, width: found.width, height: found.height };
  }

  /** For each slice of a plane, whether it holds the structure. */
  #slicesThatHold(plane) {
    const { across, up, through } = PLANES[plane];
    const holds = new Array(this.dims[through]).fill(false);
    for (let slice = 0; slice < holds.length; slice += 1) {
      const start = slice * this.strides[through];
      for (let row = 0; row < this.dims[up] && !holds[slice]; row += 1) {
        let index = start + row * this.strides[up];
        for (let column = 0; column < this.dims[across]; column += 1) {
          if (this.values[index] === this.rules.label) {
            holds[slice] = true;
            break;
          }
          index += this.strides[across];
        }
      }
    }
    return holds;
  }

  #replaceSlice(plane, slice, mask) {
    const now = this.#sliceMask(plane, slice).values;
    const gone = now.map((value, index) => (value && !mask[index] ? 1 : 0));
    this.#writeSlice(plane, slice, gone, 0);
    this.#writeSlice(plane, slice, mask, this.rules.label);
  }

  #writeSlice(plane, slice, mask, value) {
    const { across, up, through } = PLANES[plane];
    const table = this.#mayBecome(value);
    const width = this.dims[across];
    for (let row = 0; row < this.dims[up]; row += 1) {
      const place = [0, 0, 0];
      place[up] = row;
      place[through] = slice;
      for (const [first, count] of runsOf(mask.subarray(row * width, (row + 1) * width))) {
        place[across] = first;
        this.#span(place, across, count, value, table);
      }
    }
  }
}

/** First pixel and length of each run of a row that is not 0. */
function runsOf(row) {
  const runs = [];
  let first = -1;
  for (let column = 0; column <= row.length; column += 1) {
    const isSet = column < row.length && row[column] !== 0;
    if (isSet && first < 0) {
      first = column;
    } else if (!isSet && first >= 0) {
      runs.push([first, column - first]);
      first = -1;
    }
  }
  return runs;
}

/** The smallest box around two; either may be null. */
export function joined(first, second) {
  if (first === null || second === null) {
    return first ?? second;
  }
  return first.map(([low, high], axis) => [Math.min(low, second[axis][0]), Math.max(high, second[axis][1])]);
}
