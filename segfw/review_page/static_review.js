// Decisions of a review without a server: noted in the page, kept by the browser, downloaded as decisions.json.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const cards = [...document.querySelectorAll("article.case")];
  const user = document.getElementById("user");
  const key = "segfw-review " + data.cases.map(each => each.sha256.slice(0, 8)).join("");
  let language = data.language !== "auto" ? data.language : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  let noted = data.cases.map(() => ({structures: {}, rejected: false, reason: "", text: "", utc: ""}));
  let isSaved = true;
  let current = -1;

  const say = (name, values = {}) => {
    let text = data.texts[language][name] ?? name;
    for (const [word, value] of Object.entries(values)) text = text.replace(`{${word}}`, value);
    return text;
  };
  const tell = text => { document.getElementById("said").textContent = text; };

  // A browser may keep nothing for a file; then the page itself keeps what was decided until it is closed.
  const keep = () => {
    try { localStorage.setItem(key, JSON.stringify({user: user.value, noted})); } catch { /* nothing is kept */ }
  };
  const recall = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(key) ?? "null");
      if (kept && kept.noted.length === noted.length) {
        user.value = kept.user;
        noted = kept.noted;
        isSaved = !noted.some(each => isBegun(each));
      }
    } catch { /* nothing was kept */ }
  };

  const isBegun = each => each.rejected || Object.keys(each.structures).length > 0;
  const isDecided = number => {
    const each = noted[number];
    return each.rejected ? each.reason !== "" && (each.reason !== "other" || each.text.trim() !== "")
      : data.cases[number].structures.every(name => each.structures[name]);
  };

  function show(number) {
    const card = cards[number];
    const each = noted[number];
    for (const row of card.querySelectorAll("tr[data-structure]")) {
      const name = data.cases[number].structures[row.dataset.structure];
      for (const button of row.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(!each.rejected && each.structures[name] === button.dataset.choice));
      }
    }
    const rejection = card.querySelector(".rejection");
    rejection.hidden = !each.rejected;
    card.querySelector('[data-step="reject"]').setAttribute("aria-pressed", String(each.rejected));
    rejection.querySelector("select").value = each.reason;
    if (rejection.querySelector("input").value !== each.text) rejection.querySelector("input").value = each.text;
    const decided = isDecided(number);
    card.classList.toggle("done", decided);
    card.classList.toggle("rejected", each.rejected);
    const hasEdit = !each.rejected && Object.values(each.structures).includes("edit");
    card.querySelector(".decided").textContent = !decided ? "" : "✓ " + (each.rejected ? say(each.reason) : hasEdit ? say("edit-hint") : "");
  }

  function filter() {
    const wanted = document.getElementById("show").value;
    const text = document.getElementById("find").value.toLocaleLowerCase();
    cards.forEach((card, number) => {
      const fits = wanted === "all" || (wanted === "decided") === isDecided(number);
      const about = [data.cases[number].case, ...data.cases[number].structures].join(" ").toLocaleLowerCase();
      card.hidden = !(fits && about.includes(text)) && number !== current;
    });
  }

  function showAll() {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    for (const element of document.querySelectorAll("[data-t]")) element.textContent = say(element.dataset.t, element.dataset);
    for (const element of document.querySelectorAll("[data-place]")) {
      element.placeholder = say(element.dataset.place);
      element.setAttribute("aria-label", say(element.dataset.place));
    }
    cards.forEach((_, number) => show(number));
    count();
  }

  function count() {
    const done = cards.filter((_, number) => isDecided(number)).length;
    document.getElementById("progress").textContent = say("progress", {done, all: cards.length});
    filter();
  }

  function change(number, how) {
    how(noted[number]);
    noted[number].utc = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    isSaved = false;
    tell("");
    go(number, false);
    show(number);
    count();
    keep();
  }

  function go(number, isMoved = true) {
    if (number < 0 || number >= cards.length) return;
    cards.forEach((card, each) => card.classList.toggle("current", each === number));
    current = number;
    if (isMoved) {
      cards[number].hidden = false;
      cards[number].scrollIntoView({block: "start"});
      cards[number].focus({preventScroll: true});
    }
  }

  const steps = {
    "accept-all": number => change(number, each => {
      each.rejected = false;
      for (const name of data.cases[number].structures) each.structures[name] = "accept";
    }),
    "reject": number => {
      change(number, each => { each.rejected = true; });
      cards[number].querySelector(".rejection select").focus();
    },
    "clear": number => change(number, each => Object.assign(each, {structures: {}, rejected: false, reason: "", text: ""})),
  };

  cards.forEach((card, number) => {
    card.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.step) steps[button.dataset.step](number);
      else if (button.dataset.choice) {
        const name = data.cases[number].structures[button.closest("tr").dataset.structure];
        change(number, each => {
          each.rejected = false;
          if (each.structures[name] === button.dataset.choice) delete each.structures[name];
          else each.structures[name] = button.dataset.choice;
        });
      }
    });
    card.querySelector(".rejection select").addEventListener("change", event => change(number, each => { each.reason = event.target.value; }));
    card.querySelector(".rejection input").addEventListener("input", event => change(number, each => { each.text = event.target.value; }));
  });

  // What segfw accept --from takes: one entry for each structure, or one for a case that is rejected
  function entries() {
    const found = [];
    data.cases.forEach((each, number) => {
      const own = noted[number];
      const about = {case: each.case, user: user.value.trim(), utc: own.utc, sha256: each.sha256};
      if (own.rejected) found.push({...about, structure: null, decision: "reject", reason: own.reason, text: own.text.trim()});
      else for (const name of each.structures) if (own.structures[name]) found.push({...about, structure: name, decision: own.structures[name]});
    });
    return found;
  }

  document.getElementById("download").addEventListener("click", () => {
    const unclear = noted.findIndex((each, number) => each.rejected && !isDecided(number));
    if (!user.value.trim()) { tell(say("need-name")); user.focus(); return; }
    if (unclear >= 0) { tell(say("need-reason", {case: data.cases[unclear].case})); go(unclear); return; }
    const found = entries();
    if (!found.length) { tell(say("none")); return; }
    const address = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1) + "\n"], {type: "application/json"}));
    const link = Object.assign(document.createElement("a"), {href: address, download: "decisions.json"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    isSaved = true;
    tell("");
  });

  document.getElementById("language").addEventListener("click", () => { language = language === "en" ? "zh" : "en"; showAll(); });
  document.getElementById("show").addEventListener("change", () => { current = -1; filter(); });
  document.getElementById("find").addEventListener("input", () => { current = -1; filter(); });
  user.addEventListener("input", keep);
  addEventListener("beforeunload", event => { if (!isSaved) { event.preventDefault(); event.returnValue = say("unsaved"); } });
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
    const shown = cards.map((_, number) => number).filter(number => !cards[number].hidden);
    const place = shown.indexOf(current);
    const pressed = event.key.toLowerCase();
    if (pressed === "j") go(shown[Math.min(place + 1, shown.length - 1)] ?? -1);
    else if (pressed === "k") go(shown[Math.max(place - 1, 0)] ?? -1);
    else if (current >= 0 && pressed === "a") steps["accept-all"](current);
    else if (current >= 0 && pressed === "r") { event.preventDefault(); steps.reject(current); }
    else if (current >= 0 && pressed === "u") steps.clear(current);
  });

  recall();
  showAll();
}
