import { ANYWHERE, INSIDE, IN_WINDOW, MaskEditor, OUTSIDE, joined, labelsAround, labelsOf } from "/mask_editor.js";
import { PLANES } from "/planes.js";
import { draws, equal, test } from "./harness.js";

const DIMS = [7, 6, 5];
const SPACING_MM = [1, 2, 4];

function at(x, y, z) {
  return x + DIMS[0] * (y + DIMS[1] * z);
}

function editorOf(fill = {}, intensities = null) {
  const values = new Uint8Array(DIMS[0] * DIMS[1] * DIMS[2]);
  for (const [place, value] of Object.entries(fill)) {
    values[at(...place.split(",").map(Number))] = value;
  }
  return new MaskEditor(values, DIMS, SPACING_MM, intensities);
}

function draw(editor, work) {
  editor.begin("test");
  work();
  return editor.end();
}

function set(editor, value) {
  const found = [];
  editor.values.forEach((each, index) => each === value && found.push(index));
  return found;
}

test("a disc of 2 mm in an axial slice: five voxels along x, one row to either side", () => {
  const editor = editorOf();
  const change = draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", false));
  equal(set(editor, 1), [at(3, 1, 1), ...[1, 2, 3, 4, 5].map((x) => at(x, 2, 1)), at(3, 3, 1)].sort((a, b) => a - b));
  equal([change.added, change.removed, change.box], [7, 0, [[1, 6], [1, 4], [1, 2]]]);
});

test("discs lie in their plane: coronal along x and z, sagittal along y and z", () => {
  for (const [plane, wanted] of [
    ["coronal", [at(3, 2, 1), ...[0, 1, 2, 3, 4, 5, 6].map((x) => at(x, 2, 2)), at(3, 2, 3)]],
    ["sagittal", [at(3, 2, 1), at(3, 0, 2), at(3, 1, 2), at(3, 2, 2), at(3, 3, 2), at(3, 4, 2), at(3, 2, 3)]],
  ]) {
    const editor = editorOf();
    draw(editor, () => editor.dab(plane, [3, 2, 2], 4, "disc", false));
    equal(set(editor, 1), wanted.sort((a, b) => a - b), plane);
  }
});

test("a ball goes through slices, and nothing is drawn outside of the volume or around its edge", () => {
  const editor = editorOf();
  draw(editor, () => editor.dab("axial", [0, 0, 0], 4, "ball", false));
  const wanted = [at(0, 0, 1)];
  for (const [y, half] of [[0, 4], [1, 3], [2, 0]]) {
    for (let x = 0; x <= half; x += 1) {
      wanted.push(at(x, y, 0));
    }
  }
  equal(set(editor, 1), wanted.sort((a, b) => a - b));
});

test("other structures are locked, unless they are not", () => {
  const editor = editorOf({ "4,2,1": 2 });
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", false));
  equal(editor.values[at(4, 2, 1)], 2);
  editor.rules.isLocked = false;
  const change = draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", false));
  equal([editor.values[at(4, 2, 1)], change.added], [1, 1]);
});

test("erasing takes the own structure alone while others are locked", () => {
  const editor = editorOf({ "3,2,1": 1, "4,2,1": 2 });
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", true));
  equal([set(editor, 1), set(editor, 2)], [[], [at(4, 2, 1)]]);
  editor.rules.isLocked = false;
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", true));
  equal(set(editor, 2), []);
});

test("inside of a label nothing else is drawn on, and there the lock does not hold", () => {
  const editor = editorOf({ "4,2,1": 2, "2,2,1": 3 });
  Object.assign(editor.rules, { place: INSIDE, placeLabel: 2 });
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", false));
  equal([set(editor, 1), set(editor, 3)], [[at(4, 2, 1)], [at(2, 2, 1)]]);
});

test("outside of a label it stays as it is even when nothing is locked", () => {
  const editor = editorOf({ "4,2,1": 2, "2,2,1": 3 });
  Object.assign(editor.rules, { place: OUTSIDE, placeLabel: 2, isLocked: false });
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", false));
  equal([set(editor, 2), set(editor, 3), set(editor, 1).length], [[at(4, 2, 1)], [], 6]);
});

test("inside of a window only voxels of such intensities are drawn on, and erasing is free", () => {
  const intensities = new Int16Array(DIMS[0] * DIMS[1] * DIMS[2]).fill(-100);
  intensities[at(2, 2, 1)] = 40;
  intensities[at(4, 2, 1)] = 60;
  const editor = editorOf({ "3,2,1": 1 }, intensities);
  Object.assign(editor.rules, { place: IN_WINDOW, low: 30, high: 50 });
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", false));
  equal(set(editor, 1), [at(2, 2, 1), at(3, 2, 1)]);
  draw(editor, () => editor.dab("axial", [3, 2, 1], 2, "disc", true));
  equal(set(editor, 1), []);
});

test("a change that changes nothing is no change, and leaves nothing to undo", () => {
  const editor = editorOf({ "3,2,1": 1 });
  equal(draw(editor, () => editor.dab("axial", [3, 2, 1], 0.5, "disc", false)), null);
  equal(editor.history.canUndo, false);
});

test("random strokes of all tools are undone and made again exactly", () => {
  for (let seed = 0; seed < 40; seed += 1) {
    const random = draws(seed);
    const pick = (list) => list[Math.floor(random() * list.length)];
    const editor = editorOf();
    editor.values.forEach((_, index) => (editor.values[index] = Math.floor(random() * 3)));
    const states = [editor.values.slice()];
    for (let step = 0; step < 6; step += 1) {
      Object.assign(editor.rules, { label: pick([1, 2]), isLocked: random() > 0.5, place: pick([ANYWHERE, INSIDE, OUTSIDE]), placeLabel: pick([0, 1, 2]) });
      const plane = pick(Object.keys(PLANES));
      const change = draw(editor, () => {
        editor.dab(plane, DIMS.map((size) => Math.floor(random() * size)), 1 + random() * 8, pick(["disc", "ball"]), random() > 0.6);
        pick([() => editor.fillHoles(plane, 1), () => editor.interpolate(plane, 2), () => editor.eraseAll(2), () => {}])();
      });
      if (change !== null) {
        states.push(editor.values.slice());
      }
    }
    for (let step = states.length - 2; step >= 0; step -= 1) {
      editor.undo();
      equal(editor.values, states[step], `undo ${seed}`);
    }
    for (let step = 1; step < states.length; step += 1) {
      editor.redo();
      equal(editor.values, states[step], `redo ${seed}`);
    }
  }
});

test("the changed box holds all that changed, also when it is undone", () => {
  for (let seed = 0; seed < 40; seed += 1) {
    const random = draws(seed);
    const editor = editorOf();
    const place = DIMS.map((size) => Math.floor(random() * size));
    const work = [
      () => draw(editor, () => editor.dab("coronal", place, 1 + 6 * random(), "ball", false)),
      () => editor.undo(),
      () => editor.redo(),
    ];
    for (const each of work) {
      const before = editor.values.slice();
      each();
      const box = editor.takeChangedBox();
      editor.values.forEach((value, index) => {
        if (value !== before[index]) {
          const xyz = [index % DIMS[0], Math.floor(index / DIMS[0]) % DIMS[1], Math.floor(index / (DIMS[0] * DIMS[1]))];
          equal(xyz.every((each_, axis) => each_ >= box[axis][0] && each_ < box[axis][1]), true, `seed ${seed}`);
        }
      });
    }
    equal(editor.takeChangedBox(), null);
  }
});

test("a candidate takes the structure's place inside of its box alone", () => {
  const editor = editorOf({ "1,1,1": 1, "2,1,1": 1, "3,1,1": 2, "6,5,4": 1 });
  // A box of 3 x 1 x 2: x fastest.
  const change = draw(editor, () => editor.takeCandidate([[1, 4], [1, 2], [1, 3]], Uint8Array.from([0, 1, 1, 1, 0, 0])));
  equal(set(editor, 1), [at(2, 1, 1), at(1, 1, 2), at(6, 5, 4)]);
  equal(set(editor, 2), [at(3, 1, 1)]);
  equal([change.added, change.removed], [1, 1]);
});

test("slices between two that were drawn are filled, the others stay", () => {
  const editor = editorOf();
  draw(editor, () => editor.dab("axial", [3, 3, 0], 2, "disc", false));
  draw(editor, () => editor.dab("axial", [3, 3, 4], 2, "disc", false));
  let filled = 0;
  draw(editor, () => (filled = editor.interpolate("axial", 2)));
  equal(filled, 3);
  for (let z = 0; z < 5; z += 1) {
    equal(set(editor, 1).filter((index) => Math.floor(index / (DIMS[0] * DIMS[1])) === z).length, 7, `slice ${z}`);
  }
  equal(draw(editor, () => editor.interpolate("axial", 2)), null);
});

test("boxes are joined", () => {
  equal(joined(null, [[1, 2], [3, 4], [5, 6]]), [[1, 2], [3, 4], [5, 6]]);
  equal(joined([[0, 2], [3, 4], [5, 9]], [[1, 5], [2, 4], [6, 7]]), [[0, 5], [2, 4], [5, 9]]);
});

test("values of a box are put in their place, and others than empty and own voxels stay", () => {
  const editor = editorOf({ "1,1,1": 2, "2,1,1": 1, "4,1,1": 1 });
  // A box of 4 x 1 x 2 voxels from (1, 1, 1): all of its first row is 1, the second takes 3
  const given = Uint8Array.from([1, 1, 1, 1, 3, 0, 0, 3]);
  const box = [[1, 5], [1, 2], [1, 3]];
  const before = Uint8Array.from(editor.values);
  const change = draw(editor, () => editor.takeValues(box, given, [1], false));
  equal(set(editor, 1), [at(2, 1, 1), at(3, 1, 1), at(4, 1, 1)]);
  equal(set(editor, 2), [at(1, 1, 1)]);
  equal(set(editor, 3), [at(1, 1, 2), at(4, 1, 2)]);
  // Only what was changed is of the box of the change
  equal([change.added, change.removed, change.box], [1, 0, [[1, 5], [1, 2], [1, 3]]]);
  editor.undo();
  equal([...editor.values], [...before]);
  const all = draw(editor, () => editor.takeValues([[1, 2], [1, 2], [1, 2]], Uint8Array.from([1]), [1], true));
  equal(set(editor, 2), []);
  equal([all.added, all.box], [1, [[1, 2], [1, 2], [1, 2]]]);
  equal(draw(editor, () => editor.takeValues([[1, 2], [1, 2], [1, 2]], Uint8Array.from([1]), [1], true)), null);
});

test("what joins the core of a tumour is taken from the whole of it, and from no other structure", () => {
  const whole = { index: 1, parts: [[0, 1], [0, 2], [0, 3]] };
  const core = { index: 2, parts: [[0, 2], [0, 3]] };
  const ventricle = { index: 4, parts: [[0, 4]] };
  const structures = [whole, core, ventricle];
  equal(labelsOf(structures, 2, 0), [2, 3]);
  equal(labelsAround(structures, 2, 0).sort(), [1, 2, 3]);
  equal(labelsAround(structures, 4, 0), [4]);
  const editor = editorOf({ "1,1,1": 1, "2,1,1": 4, "3,1,1": 3 });
  const box = [[1, 4], [1, 2], [1, 2]];
  draw(editor, () => editor.takeValues(box, Uint8Array.from([2, 2, 3]), labelsAround(structures, 2, 0), false));
  equal([set(editor, 2), set(editor, 4), set(editor, 3)], [[at(1, 1, 1)], [at(2, 1, 1)], [at(3, 1, 1)]]);
});
