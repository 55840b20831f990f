import { distanceTo, pairsToFill, slicesBetween } from "/slice_interpolation.js";
import { enclosed } from "/hole_filling.js";
import { draws, equal, near, test } from "./harness.js";

test("distances in mm are those that looking at every pair gives", () => {
  for (let seed = 0; seed < 20; seed += 1) {
    const draw = draws(seed);
    const [width, height, spacing] = [9, 6, [0.5, 2]];
    const mask = new Uint8Array(width * height).map(() => (draw() > 0.85 ? 1 : 0));
    mask[Math.floor(draw() * mask.length)] = 1;
    const found = distanceTo(mask, width, height, spacing);
    for (let at = 0; at < mask.length; at += 1) {
      let least = Infinity;
      mask.forEach((value, other) => {
        if (value) {
          const across = ((at % width) - (other % width)) * spacing[0];
          const up = (Math.floor(at / width) - Math.floor(other / width)) * spacing[1];
          least = Math.min(least, Math.hypot(across, up));
        }
      });
      near(found[at], least, 1e-9, `seed ${seed} pixel ${at}`);
    }
  }
});

function bar(from, to) {
  return new Uint8Array(20).map((_, at) => (at >= from && at < to ? 1 : 0));
}

test("between a bar of 4 and one of 12 pixels there is one of 8", () => {
  const [middle] = slicesBetween(bar(8, 12), bar(4, 16), [20, 1], 1, [1, 1]);
  equal(middle, bar(6, 14));
});

test("a bar that moves is half way in the middle, and slices between equal ones are equal", () => {
  const [middle] = slicesBetween(bar(2, 8), bar(6, 12), [20, 1], 1, [0.7, 3]);
  equal(middle, bar(4, 10));
  for (const mask of slicesBetween(bar(3, 9), bar(3, 9), [20, 1], 4, [2, 1])) {
    equal(mask, bar(3, 9));
  }
});

test("slices drawn by hand are the ends; else the gap around the slice that is shown", () => {
  const holds = [false, true, true, false, false, true, false];
  equal(pairsToFill([1, 5], 3, holds), [[1, 5]]);
  equal(pairsToFill([1, 2, 5], 3, holds), [[2, 5]]);
  equal(pairsToFill([], 3, holds), [[2, 5]]);
  equal(pairsToFill([], 6, holds), []);
  equal(pairsToFill([], 1, holds), []);
  equal(pairsToFill([5], 4, holds), [[2, 5]]);
});

test("what a ring encloses is filled, what is open at a side is not, a corner closes", () => {
  const ring = [
    0, 0, 1, 0, 0, 0,
    0, 1, 0, 1, 0, 1,
    0, 0, 1, 0, 0, 0,
    0, 0, 0, 1, 1, 1,
  ];
  const holes = enclosed(Uint8Array.from(ring), 6, 4);
  equal(holes, ring.map((_, at) => (at === 8 ? 1 : 0)));
});
