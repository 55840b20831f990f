// All keys, made of the list of actions.

import { ask, el } from "./dom.js";
import { ACTIONS, writtenKey } from "./keymap.js";
import { t } from "./text.js";

export function showHelp() {
  const groups = [...new Set(ACTIONS.map(({ group }) => group))];
  const tables = groups.map((group) =>
    el(
      "section",
      {},
      el("h3", {}, t(`help.${group}`)),
      el("dl", {}, ACTIONS.filter((action) => action.group === group).flatMap((action) => [keys(action), el("dd", {}, t(`action.${action.id}.help`))])),
    ),
  );
  return ask(t("help.title"), [el("div", { className: "help", tabIndex: -1, autofocus: true }, tables), el("p", { className: "soft" }, t("help.mouse"))], [["close", t("dialog.close"), "primary"]]);
}

function keys({ keys: names }) {
  return el("dt", {}, names.flatMap((name, at) => [at > 0 && " ", el("kbd", {}, writtenKey(name))]));
}
