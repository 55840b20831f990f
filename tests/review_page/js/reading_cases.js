import { MOST_IDLE_S, WorkClock } from "/clock.js";
import { outlines } from "/contours.js";
import { sizeUnit, summaryOfEdits } from "/edit_summary.js";
import { gunzipIfNeeded, gzip } from "/gzip.js";
import { ACTIONS, actionOf, nameOfKey, writtenKey } from "/keymap.js";
import { readNifti } from "/nifti_file.js";
import { OKABE_ITO, colourOf, lineStyleOf } from "/palette.js";
import { edgeLetters, growsToTheRight, patientSide, placeIn, sliceValues } from "/planes.js";
import { ViewingRecord } from "/viewing_record.js";
import { percentiles, windowsOf } from "/windows.js";
import { draws, equal, near, test } from "./harness.js";

test("time counts while the page is seen and something was done in the last minute", () => {
  const clock = new WorkClock(100);
  clock.input(110);
  equal(clock.take(130), { active_s: 30, idle_s: 0 });
  equal(clock.take(230), { active_s: 40, idle_s: 60 }, "60 s after the input of 110");
  clock.show(false, 230);
  clock.input(240);
  equal(clock.take(300), { active_s: 0, idle_s: 70 }, "hidden");
  clock.show(true, 300);
  clock.input(310);
  equal(clock.take(310 + MOST_IDLE_S + 5), { active_s: 60, idle_s: 15 }, "the 10 s before the input were idle");
});

test("a clock that jumps back adds nothing", () => {
  const clock = new WorkClock(100);
  equal(clock.take(50), { active_s: 0, idle_s: 0 });
  equal(clock.take(101), { active_s: 1, idle_s: 0 });
});

test("slices are told once, and again where they could not be sent", () => {
  const record = new ViewingRecord();
  [3, 1, 3].forEach((slice) => record.see("axial", slice));
  record.see("coronal", 7);
  const taken = record.take();
  equal(taken, { axial: [1, 3], coronal: [7] });
  equal(record.take(), {});
  record.giveBack(taken);
  record.see("axial", 2);
  equal(record.take(), { axial: [1, 2, 3], coronal: [7] });
  near(record.shareSeen("axial", [1, 2, 3, 4, 5]), 0.6, 1e-12);
  equal(record.shareSeen("axial", []), 1);
});

test("no key means two things on one screen, and every action has a key", () => {
  for (const screen of ["queue", "case"]) {
    const keys = ACTIONS.filter(({ on }) => on === screen || on === "everywhere").flatMap(({ keys: own }) => own);
    equal(keys.length, new Set(keys).size, screen);
  }
  equal(ACTIONS.filter(({ keys }) => keys.length === 0), []);
});

const press = (key, more = {}) => ({ key, shiftKey: false, ctrlKey: false, metaKey: false, altKey: false, ...more });

test("keys mean what they say, with caps lock as without", () => {
  const meant = [
    [press(" "), "accept"],
    [press("z"), "undo"],
    [press("Z"), "undo"],
    [press("Z", { shiftKey: true }), "redo"],
    [press("z", { shiftKey: true }), "redo"],
    [press("z", { ctrlKey: true }), "undo"],
    [press("z", { metaKey: true, shiftKey: true }), "redo"],
    [press("?", { shiftKey: true }), "help"],
    [press("+", { shiftKey: true }), "zoom_in"],
    [press("ArrowUp"), "slice_next"],
    [press("ArrowUp", { shiftKey: true }), "cursor_up"],
    [press("Enter"), "dab"],
  ];
  for (const [event, id] of meant) {
    equal(actionOf(event, "case")?.id, id, nameOfKey(event));
  }
  equal(actionOf(press("b", { ctrlKey: true }), "case"), null);
  equal(actionOf(press("b", { altKey: true }), "case"), null);
  equal(actionOf(press("b"), "queue"), null);
  equal(actionOf(press("Enter"), "queue").id, "open");
  equal(["Shift+ArrowUp", "+", "Control+s"].map(writtenKey), ["⇧ ↑", "+", "Ctrl S"]);
});

test("outlines enclose as many pixels as the label has, for random pictures", () => {
  for (let seed = 0; seed < 60; seed += 1) {
    const draw = draws(seed);
    const [width, height] = [8, 5];
    const values = new Uint8Array(width * height).map(() => Math.floor(draw() * 3));
    for (const [label, lines] of outlines(values, width, height)) {
      let area = 0;
      for (const line of lines) {
        line.forEach(([x, y], at) => {
          const [nextX, nextY] = line[(at + 1) % line.length];
          equal((x === nextX) !== (y === nextY), true, "steps go along one axis");
          area += x * nextY - nextX * y;
        });
      }
      equal(Math.abs(area) / 2, values.filter((value) => value === label).length, `seed ${seed} label ${label}`);
    }
  }
});

test("two pixels that touch at a corner have two outlines", () => {
  const found = outlines(Uint8Array.from([1, 0, 0, 1]), 2, 2).get(1);
  equal(found.map((line) => line.length), [4, 4]);
});

test("letters and sides of both conventions", () => {
  equal(edgeLetters("axial", true), { left: "R", right: "L", top: "A", bottom: "P" });
  equal(edgeLetters("coronal", false), { left: "L", right: "R", top: "S", bottom: "I" });
  equal(edgeLetters("sagittal", true), { left: "A", right: "P", top: "S", bottom: "I" });
  equal([growsToTheRight("axial", true), growsToTheRight("coronal", false), growsToTheRight("sagittal", false)], [false, true, false]);
  equal([patientSide(0, 5), patientSide(2, 5), patientSide(4, 5), patientSide(1, 4)], ["left", "middle", "right", "left"]);
});

test("slices of the three planes", () => {
  const values = Uint8Array.from({ length: 24 }, (_, index) => index); // 2 x 3 x 4
  const of = (plane, slice) => [...sliceValues(values, [2, 3, 4], plane, slice).values];
  equal(of("axial", 1), [6, 7, 8, 9, 10, 11]);
  equal(of("coronal", 2), [4, 5, 10, 11, 16, 17, 22, 23]);
  equal(of("sagittal", 1), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
});

test("a place of the volume lies where its picture has it", () => {
  const tile = { left: 10, top: 20, width: 100, height: 60, acrossEdges: [5, 0], upEdges: [0, 3] };
  equal(placeIn(tile, 5, 3), [10, 20]);
  equal(placeIn(tile, 2.5, 0), [60, 80]);
});

test("CT has windows in HU, other images percentiles", () => {
  equal(windowsOf(new Int16Array(4), true, [])[1], { name: "lung", low: -1350, high: 150 });
  equal(windowsOf(new Int16Array(4), true, [{ name: "own", centre: 10, width: 4 }]), [{ name: "own", low: 8, high: 12 }]);
  const values = Float32Array.from({ length: 101 }, (_, at) => 100 - at);
  values[7] = NaN;
  equal(percentiles(values, [0, 50, 100]), [0, 50, 100]);
  const [percentile, whole] = windowsOf(values, false, []);
  equal([percentile.low, percentile.high, whole.low, whole.high], [1, 99, 0, 100]);
  equal(windowsOf(new Uint8Array(9), false, [])[0], { name: "percentiles", low: 0, high: 1 });
});

test("NIfTI is read with its scale; what is no such file is refused", () => {
  const buffer = new ArrayBuffer(352 + 12);
  const view = new DataView(buffer);
  view.setInt32(0, 348, true);
  [3, 3, 2, 1].forEach((value, at) => view.setInt16(40 + 2 * at, value, true));
  [1, 0.5, 2, 5].forEach((value, at) => view.setFloat32(76 + 4 * at, value, true));
  view.setInt16(70, 4, true);
  [352, 2, -10].forEach((value, at) => view.setFloat32(108 + 4 * at, value, true));
  [1, -2, 3, -4, 5, -6].forEach((value, at) => view.setInt16(352 + 2 * at, value, true));
  const found = readNifti(buffer);
  equal([found.dims, found.spacing_mm, found.slope, found.intercept], [[3, 2, 1], [0.5, 2, 5], 2, -10]);
  equal(found.values, [1, -2, 3, -4, 5, -6]);
  for (const broken of [buffer.slice(0, 300), buffer.slice(0, 360), new ArrayBuffer(400)]) {
    let message = "";
    try {
      readNifti(broken);
    } catch (error) {
      message = error.message;
    }
    equal(message === "", false, `${broken.byteLength} bytes`);
  }
});

test("bytes are packed and unpacked, and left alone where they are not packed", async () => {
  const bytes = Uint8Array.from({ length: 5000 }, (_, at) => at % 7);
  const packed = await gzip(bytes);
  equal(packed.length < 200, true);
  equal(await gunzipIfNeeded(packed), bytes);
  equal(await gunzipIfNeeded(bytes), bytes);
});

test("what was changed, in millilitres and voxels", () => {
  const before = Uint8Array.from([1, 1, 1, 2, 0, 0]);
  const after = Uint8Array.from([1, 2, 2, 2, 1, 0]);
  const structures = [{ index: 1, label: "liver" }, { index: 2, label: "spleen" }, { index: 3, label: "not there" }];
  equal(summaryOfEdits(before, after, sizeUnit(false, [10, 5, 20]).each, structures), [
    { index: 1, label: "liver", before: 3, after: 2, added: 1, removed: 2 },
    { index: 2, label: "spleen", before: 1, after: 3, added: 2, removed: 0 },
  ]);
});

test("28 structures differ in colour or line", () => {
  const looks = Array.from({ length: 28 }, (_, at) => `${colourOf(at + 1)} ${lineStyleOf(at + 1)}`);
  equal(new Set(looks).size, 28);
  equal(OKABE_ITO.length, 7);
});
