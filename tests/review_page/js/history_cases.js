import { RunHistory, RunRecorder } from "/run_history.js";
import { draws, equal, test } from "./harness.js";

/** One change of random overlapping runs, written and recorded as the editor does. */
function change(values, draw) {
  const recorder = new RunRecorder();
  for (let run = 0; run < 400; run += 1) {
    const stride = [1, 7, 35][Math.floor(draw() * 3)];
    const start = Math.floor(draw() * (values.length - 3 * stride));
    const after = Math.floor(draw() * 4);
    for (let index = start; index < start + 3 * stride; index += stride) {
      recorder.add(index, 1, 1, values[index], after);
      values[index] = after;
    }
  }
  return { runs: recorder.runs() };
}

test("undo brings back exactly what was, redo exactly what came, for random changes", () => {
  for (let seed = 0; seed < 30; seed += 1) {
    const draw = draws(seed);
    const values = new Uint8Array(350).map(() => Math.floor(draw() * 4));
    const history = new RunHistory();
    const states = [values.slice()];
    for (let step = 0; step < 5; step += 1) {
      history.push(change(values, draw));
      states.push(values.slice());
    }
    for (let step = 4; step >= 0; step -= 1) {
      history.undo(values);
      equal(values, states[step], `undo ${seed} ${step}`);
    }
    equal(history.undo(values), null);
    for (let step = 1; step <= 5; step += 1) {
      history.redo(values);
      equal(values, states[step], `redo ${seed} ${step}`);
    }
    equal(history.redo(values), null);
  }
});

test("a new change makes what was undone unreachable", () => {
  const values = new Uint8Array(8);
  const history = new RunHistory();
  const recorder = new RunRecorder();
  recorder.add(2, 3, 1, 0, 5);
  values.fill(5, 2, 5);
  history.push({ runs: recorder.runs() });
  history.undo(values);
  equal([history.canUndo, history.canRedo], [false, true]);
  history.push({ runs: recorder.runs() });
  equal([history.canUndo, history.canRedo], [true, false]);
});

test("changes that can no longer be taken back still stand, without their runs, until the history is cleared", () => {
  const values = new Uint8Array(8);
  const history = new RunHistory(60);
  const changes = [0, 1, 2].map((step) => ({ runs: new Int32Array(10), step }));
  changes.forEach((change) => history.push(change));
  equal(history.standing.map(({ step }) => step), [0, 1, 2]);
  equal(changes.map(({ runs }) => runs.length), [0, 0, 10]);
  history.undo(values);
  equal(history.standing.map(({ step }) => step), [0, 1]);
  equal(history.canUndo, false);
  history.clear();
  equal(history.standing, []);
});

test("the oldest changes are forgotten, the newest never", () => {
  const history = new RunHistory(60);
  for (let step = 0; step < 5; step += 1) {
    history.push({ runs: new Int32Array(10), step });
  }
  equal(history.done.map(({ step }) => step), [4]);
});
