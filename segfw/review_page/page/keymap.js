// Every action with its keys. Buttons are labelled from this list, the page of help is made of it, and a test asks that
// none is told twice. ``hold`` actions last as long as the key is down.

const CASE = "case";
const EVERYWHERE = "everywhere";
const QUEUE = "queue";

export const ACTIONS = [
  { id: "accept", group: "decide", keys: ["Space"], on: CASE },
  { id: "edit", group: "decide", keys: ["e"], on: CASE },
  { id: "absent", group: "decide", keys: ["x"], on: CASE },
  { id: "reject", group: "decide", keys: ["r"], on: CASE },
  { id: "finish", group: "decide", keys: ["g"], on: CASE },
  { id: "region_next", group: "go", keys: ["n"], on: CASE },
  { id: "region_previous", group: "go", keys: ["p"], on: CASE },
  { id: "item_next", group: "go", keys: ["j"], on: EVERYWHERE },
  { id: "item_previous", group: "go", keys: ["k"], on: EVERYWHERE },
  { id: "structure_next", group: "go", keys: ["."], on: CASE },
  { id: "structure_previous", group: "go", keys: [","], on: CASE },
  { id: "slice_next", group: "go", keys: ["ArrowUp", "ArrowRight"], on: CASE },
  { id: "slice_previous", group: "go", keys: ["ArrowDown", "ArrowLeft"], on: CASE },
  { id: "slice_next_10", group: "go", keys: ["PageUp"], on: CASE },
  { id: "slice_previous_10", group: "go", keys: ["PageDown"], on: CASE },
  { id: "plane_next", group: "go", keys: ["v"], on: CASE },
  { id: "cursor_up", group: "go", keys: ["Shift+ArrowUp"], on: CASE },
  { id: "cursor_down", group: "go", keys: ["Shift+ArrowDown"], on: CASE },
  { id: "cursor_left", group: "go", keys: ["Shift+ArrowLeft"], on: CASE },
  { id: "cursor_right", group: "go", keys: ["Shift+ArrowRight"], on: CASE },
  { id: "candidate_1", group: "draw", keys: ["1"], on: CASE },
  { id: "candidate_2", group: "draw", keys: ["2"], on: CASE },
  { id: "candidate_3", group: "draw", keys: ["3"], on: CASE },
  { id: "candidate_4", group: "draw", keys: ["4"], on: CASE },
  { id: "candidate_5", group: "draw", keys: ["5"], on: CASE },
  { id: "candidate_6", group: "draw", keys: ["6"], on: CASE },
  { id: "brush", group: "draw", keys: ["b"], on: CASE },
  { id: "erase", group: "draw", keys: ["d"], on: CASE },
  { id: "ball", group: "draw", keys: ["t"], on: CASE },
  { id: "dab", group: "draw", keys: ["Enter"], on: CASE },
  { id: "refine", group: "draw", keys: ["Shift+R"], on: CASE },
  { id: "refine_side", group: "draw", keys: ["Shift+X"], on: CASE },
  { id: "refine_other", group: "draw", keys: ["Shift+Enter"], on: CASE },
  { id: "refine_accept", group: "draw", keys: ["Shift+A"], on: CASE },
  { id: "refine_next", group: "draw", keys: ["Shift+N"], on: CASE },
  { id: "size_down", group: "draw", keys: ["["], on: CASE },
  { id: "size_up", group: "draw", keys: ["]"], on: CASE },
  { id: "fill", group: "draw", keys: ["f"], on: CASE },
  { id: "interpolate", group: "draw", keys: ["i"], on: CASE },
  { id: "lock", group: "draw", keys: ["y"], on: CASE },
  { id: "place", group: "draw", keys: ["u"], on: CASE },
  { id: "undo", group: "draw", keys: ["z", "Control+z"], on: CASE },
  { id: "redo", group: "draw", keys: ["Shift+Z", "Control+Shift+Z", "Control+y"], on: CASE },
  { id: "save", group: "draw", keys: ["s", "Control+s"], on: CASE },
  { id: "hide", group: "see", keys: ["h"], on: CASE, isHold: true },
  { id: "alone", group: "see", keys: ["a"], on: CASE, isHold: true },
  { id: "doubt", group: "see", keys: ["o"], on: CASE },
  { id: "contour", group: "see", keys: ["c"], on: CASE },
  { id: "window", group: "see", keys: ["w"], on: CASE },
  { id: "convention", group: "see", keys: ["l"], on: CASE },
  { id: "layout", group: "see", keys: ["q"], on: CASE },
  { id: "zoom_in", group: "see", keys: ["+", "="], on: CASE },
  { id: "zoom_out", group: "see", keys: ["-"], on: CASE },
  { id: "zoom_reset", group: "see", keys: ["0"], on: CASE },
  { id: "turn_left", group: "see", keys: ["("], on: CASE },
  { id: "turn_right", group: "see", keys: [")"], on: CASE },
  { id: "open", group: "go", keys: ["Enter"], on: QUEUE },
  { id: "go_queue", group: "screens", keys: ["Escape"], on: EVERYWHERE },
  { id: "go_compare", group: "screens", keys: ["m"], on: EVERYWHERE },
  { id: "go_summary", group: "screens", keys: ["Shift+S"], on: EVERYWHERE },
  { id: "theme", group: "screens", keys: ["Shift+D"], on: EVERYWHERE },
  { id: "language", group: "screens", keys: ["Shift+L"], on: EVERYWHERE },
  { id: "help", group: "screens", keys: ["?"], on: EVERYWHERE },
];

const BY_ID = new Map(ACTIONS.map((action) => [action.id, action]));

/** How a pressed key is written in the list above. */
export function nameOfKey(event) {
  const key = event.key === " " ? "Space" : event.key;
  const isLetter = key.length === 1 && key.toLowerCase() !== key.toUpperCase();
  const parts = [];
  if (event.ctrlKey || event.metaKey) {
    parts.push("Control");
  }
  // Shift is part of a sign such as "?" already; of letters and of named keys it is said.
  if (event.shiftKey && (isLetter || key.length > 1)) {
    parts.push("Shift");
  }
  const letter = event.shiftKey ? key.toUpperCase() : key.toLowerCase();
  return [...parts, isLetter ? letter : key].join("+");
}

/** The action that a key means on a screen, or null. */
export function actionOf(event, screen) {
  if (event.altKey) {
    return null;
  }
  const name = nameOfKey(event);
  return ACTIONS.find(({ keys, on }) => (on === EVERYWHERE || on === screen) && keys.includes(name)) ?? null;
}

/** The key of an action as it stands on a button. */
export function keyLabel(id) {
  return writtenKey(BY_ID.get(id).keys[0]);
}

const WRITTEN = {
  ArrowUp: "↑",
  ArrowDown: "↓",
  ArrowLeft: "←",
  ArrowRight: "→",
  PageUp: "PgUp",
  PageDown: "PgDn",
  Escape: "Esc",
  Control: "Ctrl",
  Shift: "⇧",
  Enter: "⏎",
};

export function writtenKey(key) {
  const parts = key === "+" ? [key] : key.split("+");
  return parts.map((part) => WRITTEN[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");
}
