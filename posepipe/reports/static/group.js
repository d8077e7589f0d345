// The table of images: only the rows in view are in the document, so that thousands open at once.
(() => {
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("group-data").textContent);
  const rows = data.rows, verdicts = data.verdicts;
  const HEIGHT = 64, SPARE = 8, PAGE = "posepipe-page", RATING = "posepipe-rating:";
  const box = get("table-box"), body = get("images").tBodies[0];
  const heads = [...document.querySelectorAll("#images th")];
  const folder = location.pathname.slice(0, location.pathname.lastIndexOf("/"));
  let queue = [];
  const state = { key: "queue", down: false, shown: rows, selected: null, next: 0, all: false };

  rows.forEach((row, index) => {
    row.index = index;
    row.merged = { queue: row.queue, ratings: row.ratings, raters: row.raters };
  });

  function make(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function show(value, digits, unit = "") {
    return value === null ? "–" : value.toFixed(digits).replace("-", "−") + unit;
  }

  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value > 0.99 || value < 0.01 ? 1 : 0)} %`);

  function open(row, fragment = "") {
    if (row && row.page) window.open(row.page + fragment, PAGE);
  }

  function badge(target, row) {
    const verdict = verdicts[row.verdict];
    target.className = `badge ${row.verdict}`;
    target.textContent = `${verdict.sign} ${verdict.word}`;
    return target;
  }

  function picture(target, row) {
    target.alt = row.picture ? `Axial and sagittal slice of ${row.name}` : "";
    if (row.picture) target.src = `data:image/webp;base64,${row.picture}`;
    else target.removeAttribute("src");
    target.style.visibility = row.picture ? "visible" : "hidden";
    return target;
  }

  // ---- ratings that the subject pages of this folder keep in this browser (rating.js)

  function ratedHere() {
    const found = new Map();
    let names = [];
    try { names = Object.keys(localStorage); } catch { return found; } // a page from disk may be given no storage
    for (const name of names.filter((one) => one.startsWith(RATING + "["))) {
      try {
        const [where, who, image] = JSON.parse(name.slice(RATING.length));
        const value = JSON.parse(localStorage.getItem(name));
        if (where !== folder || !["accept", "adjust", "reject"].includes(value.decision)) continue;
        found.set(image, [...(found.get(image) || []), { who, value }]);
      } catch { continue; } // not written by a page of posepipe
    }
    return found;
  }

  function takeRatings() {
    const here = ratedHere();
    for (const row of rows) {
      const own = (here.get(row.image) || []).filter(({ who, value }) =>
        (!value.pose || value.pose === row.pose) && !`; ${row.merged.ratings}`.includes(`; ${who}: `));
      const said = own.map(({ who, value }) => `${who || "you"}: ${value.decision}${value.quality ? " " + value.quality : ""} (in this browser)`);
      row.queue = own.length ? null : row.merged.queue;
      row.ratings = [row.merged.ratings, ...said].filter(Boolean).join("; ");
      row.raters = row.merged.raters + own.length;
      row.text = [row.path, row.reasons, row.warnings, row.ratings, row.space, row.outlier].join("\n").toLowerCase();
    }
    const now = queue[state.next];
    queue = rows.filter((row) => row.queue !== null).sort((a, b) => a.queue - b.queue);
    const place = queue.indexOf(now);
    state.next = place >= 0 ? place : Math.max(0, Math.min(state.next, queue.length - 1));
    drawNext();
  }

  // ---- order and filters

  function value(row, key) {
    if (key === "verdict") return verdicts[row.verdict].rank;
    return /^\d+$/.test(key) ? row.similarity[Number(key)] ?? null : row[key];
  }

  function compare(a, b) {
    if (state.key === "queue") { // what needs attention without being in the queue comes before it, what is done after it
      const place = (row) => (row.queue !== null ? 1 : ["failed", "unreadable"].includes(row.verdict) ? 0 : row.raters ? 2 : 3);
      const by = place(a) - place(b) || (a.queue ?? 0) - (b.queue ?? 0) || a.index - b.index;
      return state.down ? -by : by;
    }
    const x = value(a, state.key), y = value(b, state.key);
    if (x === y) return a.index - b.index;
    if (x === null || x === "") return 1; // what is not known comes last either way
    if (y === null || y === "") return -1;
    const by = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return state.down ? -by : by;
  }

  function passes() {
    const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = new Set([...document.querySelectorAll(".by-verdict:checked")].map((input) => input.value));
    const contrast = get("contrast").value, atlas = get("atlas").value;
    const from = get("age-from").value === "" ? null : Number(get("age-from").value);
    const to = get("age-to").value === "" ? null : Number(get("age-to").value);
    const outliers = get("only-outliers").checked, unrated = get("only-unrated").checked;
    return (row) =>
      kinds.has(row.verdict) &&
      (!contrast || row.contrast === contrast) &&
      (!atlas || row.atlas === atlas) &&
      (from === null || (row.age !== null && row.age >= from)) &&
      (to === null || (row.age !== null && row.age <= to)) &&
      (!outliers || row.outlier !== "") &&
      (!unrated || row.raters === 0) &&
      words.every((word) => row.text.includes(word));
  }

  function update(keep = false) {
    state.shown = rows.filter(passes()).sort(compare);
    if (!state.shown.includes(state.selected)) state.selected = null;
    for (const head of heads) {
      const button = head.querySelector("button");
      if (button) head.setAttribute("aria-sort", button.dataset.sort !== state.key ? "none" : state.down ? "descending" : "ascending");
    }
    get("shown").textContent = `${state.shown.length} of ${rows.length} shown`;
    get("images").setAttribute("aria-rowcount", state.shown.length + 1);
    if (keep !== true) box.scrollTop = 0;
    drawRows();
    drawCharts();
  }

  // ---- rows

  function cell(line, className, text) {
    const made = make("td", className, text);
    line.append(made);
    return made;
  }

  function clipped(line, className, text) {
    const inner = make("div", "clip", text);
    inner.title = text;
    cell(line, className).append(inner);
  }

  function lineOf(row, place) {
    const line = make("tr", row === state.selected ? "row selected" : "row");
    line.setAttribute("aria-rowindex", place + 2);
    line.dataset.index = row.index;
    cell(line, "number", row.queue === null ? "" : String(row.queue));
    const image = make("img");
    image.width = 112;
    image.height = 56;
    cell(line).append(picture(image, row));
    const name = make(row.page ? "a" : "span", "clip", row.name);
    if (row.page) { name.href = row.page; name.target = PAGE; }
    name.title = row.path;
    cell(line, "name").append(name);
    cell(line, "tight").append(badge(make("span"), row));
    clipped(line, "why", [row.reasons, row.warnings].filter(Boolean).join("; "));
    cell(line, "number", percent(row.confidence));
    cell(line, "number", show(row.angle, 1, "°"));
    cell(line, "number", show(row.spread, 1, "°"));
    cell(line, "number", show(row.age, 1));
    cell(line, "tight", row.space);
    data.measures.forEach((_, n) => cell(line, "number", show(row.similarity[n] ?? null, 3)));
    cell(line, row.outlier ? "tight ring" : "tight", row.outlier);
    clipped(line, "said", row.ratings);
    return line;
  }

  function spacer(height) {
    const line = make("tr", "spacer");
    const filled = cell(line);
    filled.colSpan = heads.length;
    filled.style.height = `${height}px`;
    line.setAttribute("aria-hidden", "true");
    return line;
  }

  function drawRows() {
    const count = state.shown.length;
    const first = state.all ? 0 : Math.max(0, Math.floor(box.scrollTop / HEIGHT) - SPARE);
    const last = state.all ? count : Math.min(count, Math.ceil((box.scrollTop + box.clientHeight) / HEIGHT) + SPARE);
    const lines = [];
    if (first > 0) lines.push(spacer(first * HEIGHT));
    for (let n = first; n < last; n++) lines.push(lineOf(state.shown[n], n));
    if (last < count) lines.push(spacer((count - last) * HEIGHT));
    body.replaceChildren(...lines);
  }

  function select(row) {
    state.selected = row;
    const top = state.shown.indexOf(row) * HEIGHT, head = heads[0].offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + HEIGHT + head > box.scrollTop + box.clientHeight) box.scrollTop = top + HEIGHT + head - box.clientHeight;
    drawRows();
  }

  function step(by) {
    if (!state.shown.length) return;
    const at = state.shown.indexOf(state.selected);
    select(state.shown[at < 0 ? 0 : Math.max(0, Math.min(state.shown.length - 1, at + by))]);
  }

  // ---- charts

  function point(row) {
    get("readout").textContent = row
      ? `${row.path}: ${verdicts[row.verdict].word}, ${show(row.age, 1)} weeks, turned ${show(row.angle, 1, "°")}, confidence ` +
        `${percent(row.confidence)}` + data.measures.map((name, n) => `, ${name} ${show(row.similarity[n] ?? null, 3)}`).join("") +
        (row.outlier ? `, outlier (${row.outlier})` : "")
      : "Point at a mark to see which image it is; click it to open its page.";
  }

  function drawCharts() {
    const common = { pick: open, point };
    const none = rows.some((row) => row.confidence !== null) ? "None of the rows shown." : "No confidence was estimated for these images.";
    GroupCharts.draw(get("chart-angle"), state.shown, { ...common, value: (r) => r.angle, name: "Rotation angle in degrees", fixed: [0, 180], none: "None of the rows shown." });
    GroupCharts.draw(get("chart-confidence"), state.shown, { ...common, value: (r) => r.confidence, name: "Confidence", fixed: [0, 1], none });
    drawSimilarity();
  }

  function drawSimilarity() {
    const measure = Number(get("measure").value || 0);
    GroupCharts.draw(get("chart-similarity"), state.shown, {
      pick: open, point, value: (r) => r.similarity[measure], name: data.measures[measure] ?? "Similarity", none: "None of the rows shown.",
    });
  }

  // ---- next to review

  function drawNext() {
    const row = queue[state.next];
    get("next-card").hidden = !row;
    get("next-none").hidden = Boolean(row);
    get("next-count").textContent = queue.length ? `${Math.min(state.next + 1, queue.length)} of ${queue.length}` : "";
    if (!row) return;
    badge(get("next-badge"), row);
    picture(get("next-picture"), row);
    get("next-name").textContent = row.name;
    const facts = [`${show(row.age, 1)} weeks`, row.space, `confidence ${row.confidence === null ? "not estimated" : percent(row.confidence)}`];
    get("next-why").textContent = [facts.join(", "), row.reasons, row.outlier && `outlier: ${row.outlier}`].filter(Boolean).join(" · ");
    get("next-open").disabled = !row.page;
    get("next-back").disabled = state.next === 0;
    get("next-skip").disabled = state.next === queue.length - 1;
  }

  function move(by) {
    state.next = Math.max(0, Math.min(queue.length - 1, state.next + by));
    drawNext();
  }

  function openNext() {
    if (!queue.length) return;
    open(queue[state.next], "#rate");
    move(1);
  }

  // ---- what the reader does

  function reset() {
    get("filters").reset();
    update();
  }

  for (const head of heads) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      state.down = state.key === button.dataset.sort ? !state.down : false;
      state.key = button.dataset.sort;
      update();
    });
  }
  get("filters").addEventListener("input", update);
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  get("show-all").addEventListener("click", reset);
  get("measure").addEventListener("change", drawSimilarity);
  get("next-open").addEventListener("click", openNext);
  get("next-skip").addEventListener("click", () => move(1));
  get("next-back").addEventListener("click", () => move(-1));
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr.row");
    if (!line) return;
    const row = rows[Number(line.dataset.index)];
    if (!event.target.closest("a")) open(row); // a link opens itself
    select(row);
  });
  let waiting = false;
  box.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; drawRows(); });
  });
  window.addEventListener("resize", drawRows);
  window.addEventListener("beforeprint", () => { state.all = true; drawRows(); });
  window.addEventListener("afterprint", () => { state.all = false; drawRows(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const writing = event.target.closest("input[type=search], input[type=number], select");
    if (event.key === "Escape") { reset(); if (writing) writing.blur(); return; }
    if (writing) return;
    const keys = {
      n: openNext, s: () => move(1), j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
      "/": () => get("search").focus(), "?": () => { get("help").open = !get("help").open; },
    };
    if (event.key === "Enter" && !event.target.closest("button, a, summary, input")) open(state.selected);
    else if (keys[event.key] && !(event.key.startsWith("Arrow") && event.target.closest("input"))) { keys[event.key](); event.preventDefault(); }
  });

  let known = "";
  function look() { // again, when the reader comes back from a subject page
    const now = JSON.stringify([...ratedHere()]);
    if (now === known) return;
    known = now;
    takeRatings();
    update(true);
  }
  window.addEventListener("storage", look);
  window.addEventListener("focus", look);

  look();
})();
