import { ballRows, discRows, nextRadius, placesBetween } from "/brush.js";
import { equal, test } from "./harness.js";

test("a disc counted by hand: 2 mm, columns of 1 mm, rows of 0.5 mm", () => {
  const halves = discRows(2, 1, 0.5).map(({ half }) => half);
  equal(halves, [0, 1, 1, 1, 2, 1, 1, 1, 0]);
});

test("the centre always belongs, however small the brush is", () => {
  equal(discRows(0.1, 3, 5), [{ step: 0, half: 0 }]);
  equal(ballRows(0.1, [3, 5, 2]), [{ depth: 0, step: 0, half: 0 }]);
});

test("a disc and a ball hold exactly the voxels whose centres are near enough", () => {
  for (const [radius, spacing] of [[3, [0.7, 1.3, 2.1]], [5, [1, 1, 1]], [4.2, [2.5, 0.9, 0.6]], [7, [0.5, 5, 3]]]) {
    let disc = 0;
    let ball = 0;
    for (let x = -20; x <= 20; x += 1) {
      for (let y = -20; y <= 20; y += 1) {
        disc += Math.hypot(x * spacing[0], y * spacing[1]) <= radius + 1e-9 ? 1 : 0;
        for (let z = -20; z <= 20; z += 1) {
          ball += Math.hypot(x * spacing[0], y * spacing[1], z * spacing[2]) <= radius + 1e-9 ? 1 : 0;
        }
      }
    }
    equal(discRows(radius, spacing[0], spacing[1]).reduce((sum, { half }) => sum + 2 * half + 1, 0), disc, `disc ${radius}`);
    equal(ballRows(radius, spacing).reduce((sum, { half }) => sum + 2 * half + 1, 0), ball, `ball ${radius}`);
  }
});

test("between two places there is no gap, and the first is not put down twice", () => {
  equal(placesBetween([2, 3, 1], [6, 1, 1]), [[3, 3, 1], [4, 2, 1], [5, 2, 1], [6, 1, 1]]);
  equal(placesBetween([1, 1, 1], [1, 1, 1]), []);
});

test("sizes go up and down in halves of a millimetre and end at half a millimetre", () => {
  let radius = 0.5;
  while (radius < 90) {
    const larger = nextRadius(radius, true);
    equal(larger > radius && Number.isInteger(larger * 2), true, String(radius));
    radius = larger;
  }
  equal(nextRadius(0.5, false), 0.5);
  equal(nextRadius(1e9, true), 100);
});
