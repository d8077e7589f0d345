"use strict";
/* Ratings of a subject page: kept in the browser, exported and imported as JSON (format: docs/tutorials/qc.md). */
(() => {
  const PREFIX = "posepipe-rating:", RATER = "posepipe-rater", VERSION = 1;
  const DECISIONS = ["accept", "adjust", "reject"];
  const words = (location.search + "&" + location.hash).split(/[?#&]/);
  const blind = words.includes("blind"), rating = words.includes("rate");
  if (blind) document.documentElement.classList.add("blind");  // before anything is shown
  const folder = location.pathname.slice(0, location.pathname.lastIndexOf("/"));
  const byId = (id) => document.getElementById(id);
  let store, forms = [], rater = "", unsaved = false;

  /* The browser's storage, or the page's memory if the browser gives a page from disk no storage. */
  function openStore() {
    try {
      localStorage.setItem(PREFIX, "");
      localStorage.removeItem(PREFIX);
      return { kept: true, get: (key) => localStorage.getItem(key), set: (key, value) => localStorage.setItem(key, value),
        remove: (key) => localStorage.removeItem(key), keys: () => Object.keys(localStorage) };
    } catch {
      const memory = new Map();
      return { kept: false, get: (key) => memory.get(key) ?? null, set: (key, value) => memory.set(key, value),
        remove: (key) => memory.delete(key), keys: () => [...memory.keys()] };
    }
  }

  const key = (image, who = rater) => PREFIX + JSON.stringify([folder, who, image]);

  function read(name) {
    try { return JSON.parse(store.get(name)); } catch { return null; }
  }

  function say(text, bad = false) {
    byId("message").textContent = text;
    byId("message").classList.toggle("bad", bad);
  }

  function put(name, value) {
    try {
      store.set(name, JSON.stringify(value));
    } catch (error) {
      say(`This browser could not keep the rating (${error.name}); export before you close the page.`, true);
    }
  }

  class Form {
    constructor(form) {
      this.form = form;
      this.section = form.closest("section.image");
      this.known = form.dataset;  // subject, session, image, pose
      this.stale = null;
      form.addEventListener("input", () => this.save());
      form.addEventListener("submit", (event) => event.preventDefault());
      form.querySelector("[name=clear]").addEventListener("click", () => this.clear());
    }

    get value() {
      const all = new FormData(this.form);
      return { subject: this.known.subject, session: this.known.session || null, image: this.known.image,
        decision: all.get("decision"), quality: all.get("quality") ? Number(all.get("quality")) : null,
        artefacts: all.getAll("artefacts"), comment: all.get("comment"), rated: new Date().toISOString() };
    }

    get rated() { return Boolean(this.form.querySelector("[name=decision]:checked")); }

    save() {
      put(key(this.known.image), { ...this.value, pose: this.known.pose });
      unsaved = true;
      this.stale = null;
      this.showStatus();
      showProgress();
    }

    clear() {
      this.form.reset();
      store.remove(key(this.known.image));
      this.stale = null;
      this.showStatus();
      showProgress();
    }

    load() {
      const found = read(key(this.known.image));
      this.stale = found && found.pose && found.pose !== this.known.pose ? found : null;
      this.form.reset();
      if (found && !this.stale) this.fill(found);
      this.showStatus();
    }

    fill(found) {
      const tick = (name, value) => {
        const box = [...this.form.querySelectorAll(`[name=${name}]`)].find((one) => one.value === String(value));
        if (box) box.checked = true;
      };
      tick("decision", found.decision);
      tick("quality", found.quality);
      (found.artefacts || []).forEach((artefact) => tick("artefacts", artefact));
      this.form.querySelector("[name=comment]").value = found.comment || "";
    }

    showStatus() {
      const value = this.value;
      const parts = [value.decision, value.quality && `quality ${value.quality}`, ...value.artefacts, value.comment];
      const status = this.form.querySelector(".status");
      const begun = value.quality || value.artefacts.length || value.comment;
      status.textContent = this.rated ? "Rated." : this.stale
        ? `You rated an earlier pose of this image (${this.stale.decision}); rate this one.`
        : begun ? "Not rated yet: choose accept, adjust or reject." : "Not rated yet.";
      this.form.querySelector(".print-only").textContent =
        this.rated ? `${rater || "Rating"}: ${parts.filter(Boolean).join(", ")}` : "Not rated.";
      this.section.classList.toggle("rated", this.rated);
      if (blind && this.rated) reveal(this.section.id);
    }
  }

  /* Shows the parts of an image that are hidden from a blind rater. */
  function reveal(id) {
    document.querySelectorAll(`#${id} .qc, .qc[data-of="${id}"]`).forEach((part) => part.classList.add("seen"));
  }

  function showProgress() {
    const done = forms.filter((form) => form.rated).length;
    byId("progress").textContent = `${done} of ${forms.length} images of this page rated`;
    byId("unsaved").hidden = store.kept || !unsaved;
    if (blind && done === forms.length) document.querySelectorAll(".qc").forEach((part) => part.classList.add("seen"));
  }

  function rename(name) {
    const before = rater;
    rater = name.trim();
    put(RATER, rater);
    forms.forEach((form) => {
      const loose = before === "" && rater !== "" && form.stale === null && read(key(form.known.image, ""));
      if (loose && !read(key(form.known.image))) put(key(form.known.image), loose);  // rated before the name was given
      if (loose) store.remove(key(form.known.image, ""));
      form.load();
    });
    showProgress();
  }

  /* All ratings of this rater in this folder, including other pages; of this page, only those of its current poses. */
  function gathered() {
    const here = new Map(forms.map((form) => [form.known.image, form]));
    const found = [];
    for (const name of store.keys().filter((one) => one.startsWith(PREFIX + "["))) {
      const [where, who, image] = JSON.parse(name.slice(PREFIX.length));
      const value = read(name);
      const form = here.get(image);
      if (where !== folder || who !== rater || !value || !DECISIONS.includes(value.decision) || form?.stale) continue;
      delete value.pose;
      found.push(value);
    }
    return found.sort((a, b) => (a.image < b.image ? -1 : 1));
  }

  function save() {
    if (!rater) {
      say("Give your name first.", true);
      byId("rater").focus();
      return;
    }
    const ratings = gathered();
    if (!ratings.length) {
      say("There is nothing to export yet: no image is rated.", true);
      return;
    }
    const content = { posepipe_ratings: VERSION, rater, exported: new Date().toISOString(), ratings };
    const address = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
    const anchor = document.createElement("a");
    anchor.href = address;
    anchor.download = `posepipe_ratings_${rater.replace(/[^\p{L}\p{N}-]+/gu, "_")}.json`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    unsaved = false;
    showProgress();
    say(`${ratings.length} rating${ratings.length > 1 ? "s" : ""} exported.`);
  }

  function checked(text) {
    let content;
    try { content = JSON.parse(text); } catch { throw new Error("it is no JSON"); }
    if (!content || content.posepipe_ratings !== VERSION) throw new Error(`it holds no posepipe ratings of version ${VERSION}`);
    if (typeof content.rater !== "string" || !content.rater.trim()) throw new Error("it names no rater");
    const fine = (one) => one && typeof one.image === "string" && DECISIONS.includes(one.decision)
      && Array.isArray(one.artefacts) && typeof one.comment === "string" && !Number.isNaN(Date.parse(one.rated));
    if (!Array.isArray(content.ratings) || !content.ratings.every(fine)) throw new Error("a rating in it is not complete");
    return content;
  }

  async function load(file) {
    let content;
    try {
      content = checked(await file.text());
    } catch (error) {
      say(`${file.name} was not imported: ${error.message}.`, true);
      return;
    }
    byId("rater").value = content.rater.trim();
    rename(content.rater);
    const here = new Set(forms.map((form) => form.known.image));
    let taken = 0, newer = 0, elsewhere = 0;
    for (const one of content.ratings) {
      const mine = read(key(one.image));
      if (mine && DECISIONS.includes(mine.decision) && Date.parse(mine.rated) > Date.parse(one.rated)) { newer += 1; continue; }
      put(key(one.image), { ...one, pose: null });
      if (here.has(one.image)) taken += 1; else elsewhere += 1;
    }
    forms.forEach((form) => form.load());
    showProgress();
    say([`Ratings of ${rater}: ${taken} imported`, newer && `${newer} left as they are here, which is newer`,
      elsewhere && `${elsewhere} of images on other pages`].filter(Boolean).join(", ") + ".");
  }

  /* Sorted by name, as the order by urgency would reveal the verdicts to a blind rater. */
  function sortByName() {
    for (const selector of ["main > section.image", "table.summary > tbody"]) {
      const found = [...document.querySelectorAll(selector)];
      if (!found.length) continue;
      const mark = document.createComment("");
      found[0].before(mark);
      found.sort((a, b) => (a.dataset.name < b.dataset.name ? -1 : 1)).forEach((one) => mark.before(one));
      mark.remove();
    }
  }

  const CHOICES = { 1: "accept", 2: "adjust", 3: "reject" };

  function pressed(event) {
    if (event.target.matches("textarea, input[type=text]") || event.ctrlKey || event.altKey || event.metaKey) return;
    if (!byId("shortcuts").checked || !CHOICES[event.key]) return;
    const focused = document.activeElement.closest("section.image");
    const shown = (form) => form.section.getBoundingClientRect();
    const form = forms.find((one) => one.section === focused)
      || forms.find((one) => shown(one).bottom > innerHeight / 2 && shown(one).top < innerHeight);
    if (!form) return;
    form.form.querySelector(`[value=${CHOICES[event.key]}]`).checked = true;
    form.save();
  }

  function start() {
    store = openStore();
    forms = [...document.querySelectorAll("form.rating")].map((form) => new Form(form));
    if (blind) sortByName();
    document.documentElement.dataset.forms = String(forms.length);
    if (!forms.length) return;  // nothing was aligned, so there is nothing to rate
    byId("no-storage").hidden = store.kept;
    rater = String(read(RATER) || "");
    byId("rater").value = rater;
    byId("rater").addEventListener("change", (event) => rename(event.target.value));
    byId("export").addEventListener("click", save);
    byId("import").addEventListener("change", (event) => {
      if (event.target.files.length) load(event.target.files[0]).then(() => { event.target.value = ""; });
    });
    document.addEventListener("keydown", pressed);
    addEventListener("storage", () => { forms.forEach((form) => form.load()); showProgress(); });
    addEventListener("beforeunload", (event) => { if (!store.kept && unsaved) event.preventDefault(); });
    forms.forEach((form) => form.load());
    showProgress();
    if (rating) {
      document.documentElement.classList.add("rate");
      const next = forms.find((form) => !form.rated) || forms[0];
      (rater ? next.form.querySelector("[name=decision]") : byId("rater")).focus({ preventScroll: true });
      if (rater) next.section.scrollIntoView({ block: "start" });
    }
  }

  document.addEventListener("DOMContentLoaded", start);
})();
