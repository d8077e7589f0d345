"use strict";
/* The viewer of a subject page: slices of an image before and after its pose, and of the atlas, from embedded sheets. */
(() => {
  const LINES = {  // outline → colour, width in CSS pixels, dashes; solid is the atlas, dashed the image
    mask: ["#5cc4ff", 1.9, [6, 4]], subject: ["#5cc4ff", 1.1, [3, 2]],
    atlas: ["#ffa914", 1.9, []], structures: ["#ffa914", 1.0, []],
  };
  const BLINK_MS = 700;  // below three flashes a second, which may harm
  const viewers = new Map();
  let sheets = [];

  class Viewer {
    constructor(figure, views, units) {
      this.figure = figure;
      this.views = views;
      this.units = units;
      this.blinking = 0;
      this.shown = false;  // the atlas, while blinking
      this.cells = [];
      this.paths = new Map();
      this.at = views.planes.map((plane) => Math.floor(plane.at.length / 2));
      this.opacity = figure.querySelector("[name=opacity]");
      this.button = figure.querySelector("[name=blink]");
      this.build();
      figure.addEventListener("input", (event) => this.changed(event.target));
      this.button.addEventListener("click", () => this.blink());
      new ResizeObserver(() => this.draw()).observe(this.grid);
    }

    on(name) { return this.figure.querySelector(`[name=${name}]`).checked; }

    rows() {
      const names = Object.keys(this.views.layers);
      return names.filter((name) => this.on(`row-${name}`));
    }

    build() {
      this.grid = this.figure.querySelector(".planes");
      const { planes, layers } = this.views;
      this.grid.style.gridTemplateColumns = planes.map((plane) => `minmax(0, ${plane.width}fr)`).join(" ");
      for (const layer of Object.keys(layers)) {
        planes.forEach((plane, number) => this.addCell(layer, plane, number));
      }
      this.sliders = planes.map((plane, number) => this.addSlider(plane, number));
    }

    addCell(layer, plane, number) {
      const cell = document.createElement("div");
      cell.className = "cell";
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.style.aspectRatio = `${plane.width} / ${plane.height}`;
      const label = document.createElement("span");
      label.textContent = this.figure.querySelector(`[name=row-${layer}]`).dataset.title;
      cell.append(canvas, label);
      this.grid.append(cell);
      this.cells.push({ cell, canvas, layer, plane, number });
      canvas.addEventListener("click", (event) => {
        this.point(plane, event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight);
        this.sliders[number].focus({ preventScroll: true });
      });
      canvas.addEventListener("wheel", (event) => {
        // only after the reader has focused the viewer; otherwise the wheel scrolls the page
        if (!this.figure.contains(document.activeElement) || event.ctrlKey) return;
        event.preventDefault();
        this.move(number, Math.sign(event.deltaY));
      }, { passive: false });
    }

    addSlider(plane, number) {
      const label = document.createElement("label");
      label.className = "slice";
      const text = document.createElement("span");
      const slider = document.createElement("input");
      slider.type = "range";
      slider.name = `slice-${plane.name}`;
      slider.max = plane.at.length - 1;
      slider.value = this.at[number];
      slider.dataset.plane = number;
      label.append(text, slider);
      this.grid.append(label);
      return slider;
    }

    changed(target) {
      if (target.dataset.plane !== undefined) this.at[target.dataset.plane] = Number(target.value);
      if (target.name === "opacity" && this.blinking) this.blink();
      this.draw();
    }

    move(number, by) {
      const last = this.views.planes[number].at.length - 1;
      this.at[number] = Math.max(0, Math.min(last, this.at[number] + by));
      this.draw();
    }

    moveAll(by) { this.at.forEach((_, number) => this.move(number, by)); }

    /* Moves the other planes to the point (x, y), fractions of a slice's width and height. */
    point(plane, x, y) {
      const place = { [plane.axes[0]]: plane.corner[0] + (x * plane.width - 0.5) * plane.pixel,
        [plane.axes[1]]: plane.corner[1] - (y * plane.height - 0.5) * plane.pixel };
      this.views.planes.forEach((other, number) => {
        if (other === plane) return;
        const off = other.at.map((mm) => Math.abs(mm - place[other.axes[2]]));
        this.at[number] = off.indexOf(Math.min(...off));
      });
      this.draw();
    }

    fade(by) {
      if (this.blinking) this.blink();
      this.opacity.value = Number(this.opacity.value) + by;
      this.draw();
    }

    blink() {
      clearInterval(this.blinking);
      this.blinking = this.blinking ? 0 : setInterval(() => { this.shown = !this.shown; this.draw(); }, BLINK_MS);
      this.shown = Boolean(this.blinking);
      this.button.setAttribute("aria-pressed", String(Boolean(this.blinking)));
      this.draw();
    }

    toggle(name) {
      const box = this.figure.querySelector(`[name=${name}]`);
      box.checked = !box.checked;
      this.draw();
    }

    draw() {
      const rows = this.rows();
      this.figure.querySelector(".amount").textContent = `${this.opacity.value} %`;
      this.figure.querySelector(".no-row").hidden = rows.length > 0;
      for (const cell of this.cells) {
        cell.cell.hidden = !rows.includes(cell.layer);
        if (!cell.cell.hidden) this.drawCell(cell);
      }
      this.views.planes.forEach((plane, number) => {
        const title = plane.titles[this.at[number]];
        this.sliders[number].value = this.at[number];
        this.sliders[number].setAttribute("aria-valuetext", title);
        this.sliders[number].previousSibling.textContent = title;
      });
    }

    drawCell({ canvas, layer, plane, number }) {
      const ratio = Math.min(2, window.devicePixelRatio || 1);
      const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
      const scale = width / plane.width;
      canvas.width = width;
      canvas.height = Math.max(1, Math.round(plane.height * scale));
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      const atlas = layer === "atlas" ? 1 : this.blinking ? Number(this.shown) : this.opacity.value / 100;
      if (atlas < 1) this.drawSlice(context, layer, plane, number, 1);
      if (atlas > 0) this.drawSlice(context, "atlas", plane, number, atlas);
      for (const name of this.outlines(layer)) this.drawOutline(context, name, number, scale, ratio);
      this.drawSides(context, plane.sides, ratio);
      canvas.setAttribute("aria-label", `${layer}, ${plane.titles[this.at[number]]}`);
    }

    drawSlice(context, layer, plane, number, alpha) {
      const sheet = sheets[this.views.layers[layer][number]];
      if (!sheet || !sheet.naturalWidth) return;
      const slice = this.at[number];
      const x = (slice % plane.across) * plane.width, y = Math.floor(slice / plane.across) * plane.height;
      context.globalAlpha = alpha;
      context.drawImage(sheet, x, y, plane.width, plane.height, 0, 0, context.canvas.width, context.canvas.height);
      context.globalAlpha = 1;
    }

    outlines(layer) {
      if (layer === "atlas") return this.on("image-on-atlas") ? ["mask-after", "subject"] : [];
      const found = this.on("atlas-on-image") ? ["structures", "atlas"] : [];
      if (this.on("mask")) found.push(layer === "before" ? "mask-before" : "mask-after");
      return found;
    }

    drawOutline(context, name, number, scale, ratio) {
      const key = `${name}/${number}/${this.at[number]}`;
      if (!this.paths.has(key)) this.paths.set(key, new Path2D(this.views.outlines[name][number][this.at[number]]));
      const [color, width, dashes] = LINES[name.split("-")[0]];
      const unit = scale / this.units;
      context.save();
      context.setTransform(unit, 0, 0, unit, scale / 2, scale / 2);
      context.lineJoin = "round";
      context.strokeStyle = "rgb(0 0 0 / 55%)";
      context.lineWidth = (width + 1.6) * ratio / unit;
      context.stroke(this.paths.get(key));
      context.strokeStyle = color;
      context.lineWidth = width * ratio / unit;
      context.setLineDash(dashes.map((dash) => dash * ratio / unit));
      context.stroke(this.paths.get(key));
      context.restore();
    }

    drawSides(context, sides, ratio) {
      const { width, height } = context.canvas, edge = 10 * ratio;
      const spots = [[edge, height / 2], [width - edge, height / 2], [width / 2, edge], [width / 2, height - edge]];
      context.font = `600 ${13 * ratio}px sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.lineWidth = 3 * ratio;
      context.strokeStyle = "#000";
      context.fillStyle = "#e4eaf0";
      spots.forEach(([x, y], n) => { context.strokeText(sides[n], x, y); context.fillText(sides[n], x, y); });
    }
  }

  /* The image that keys act on: the focused one, else the one with the largest visible area. */
  function current() {
    const sections = [...document.querySelectorAll("section.image")];
    const focused = document.activeElement && document.activeElement.closest("section.image");
    const seen = (section) => {
      const box = section.getBoundingClientRect();
      return Math.min(box.bottom, innerHeight) - Math.max(box.top, 0);
    };
    const best = sections.reduce((a, b) => (a && seen(a) >= seen(b) ? a : b), null);
    return focused && seen(focused) > 0 ? focused : best;
  }

  function step(by) {
    const sections = [...document.querySelectorAll("main > section.image, main > section.failure")];
    const here = sections.findIndex((section) => section.contains(document.activeElement));
    const next = here < 0 ? sections.findIndex((s) => s.getBoundingClientRect().top > -8) + (by > 0 ? 0 : -1) : here + by;
    const target = sections[Math.max(0, Math.min(sections.length - 1, next))];
    if (!target) return;
    target.querySelector("h2").focus({ preventScroll: true });
    target.scrollIntoView({ block: "start" });
  }

  const KEYS = {
    b: (viewer) => viewer.blink(), "+": (viewer) => viewer.fade(10), "-": (viewer) => viewer.fade(-10),
    ".": (viewer) => viewer.moveAll(1), ",": (viewer) => viewer.moveAll(-1),
    m: (viewer) => viewer.toggle("mask"), a: (viewer) => viewer.toggle("atlas-on-image"),
    i: (viewer) => viewer.toggle("image-on-atlas"),
  };

  function pressed(event) {
    const typing = event.target.matches("textarea, input[type=text]");
    if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
    if (!document.getElementById("shortcuts").checked) return;
    if (event.key === "n" || event.key === "p") step(event.key === "n" ? 1 : -1);
    const section = current(), act = KEYS[event.key];
    const viewer = section && viewers.get(section.id);
    if (act && viewer) { act(viewer); event.preventDefault(); }
  }

  function decoded(address) {
    const image = new Image();
    image.src = address;
    return image.decode().then(() => image, () => image);
  }

  async function start() {
    document.documentElement.classList.add("script");
    document.addEventListener("keydown", pressed);
    const data = JSON.parse(document.getElementById("views").textContent);
    sheets = await Promise.all(data.sheets.map(decoded));
    for (const [id, views] of Object.entries(data.images)) {
      viewers.set(id, new Viewer(document.querySelector(`#${id} .viewer`), views, data.units));
    }
    viewers.forEach((viewer) => viewer.draw());
    document.documentElement.dataset.viewers = String(viewers.size);
  }

  document.addEventListener("DOMContentLoaded", start);
})();
