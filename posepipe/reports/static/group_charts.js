"use strict";
// Scatter plots over age with the distribution beside them. Marks differ in shape and in colour.
const GroupCharts = (() => {
  const WIDE = 470, HIGH = 262, LEFT = 48, RIGHT = 86, TOP = 10, BOTTOM = 38, BARS = 24;
  const SVG = "http://www.w3.org/2000/svg";
  const KINDS = [["pass", "#0072b2"], ["review", "#b87700"], ["fail", "#c23b00"]];
  const MARKS = {
    pass: (x, y, r) => circle(x, y, r),
    review: (x, y, r) => `M${x} ${y - 1.5 * r}l${1.5 * r} ${2.6 * r}h${-3 * r}Z`,
    fail: (x, y, r) => `M${x - 1.25 * r} ${y - 1.25 * r}h${2.5 * r}v${2.5 * r}h${-2.5 * r}Z`,
  };

  function circle(x, y, r) {
    return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Round numbers that cover the range, about `count` of them.
  function ticks(low, high, count) {
    const rough = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
    return found;
  }

  function range(values, fixed) {
    if (fixed) return fixed;
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return [low - room, high + room];
  }

  function axes(svg, x, y, [left, right], [low, high], title) {
    for (const value of ticks(left, right, 6)) {
      svg.append(element("line", { x1: x(value), x2: x(value), y1: TOP, y2: HIGH - BOTTOM, stroke: "#e6ebf0" }));
      svg.append(element("text", { x: x(value), y: HIGH - BOTTOM + 15, "text-anchor": "middle", fill: "#55616e" }, String(value)));
    }
    for (const value of ticks(low, high, 5)) {
      svg.append(element("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(value), y2: y(value), stroke: "#e6ebf0" }));
      svg.append(element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end", fill: "#55616e" }, String(value)));
    }
    const middle = (LEFT + WIDE - RIGHT) / 2;
    svg.append(element("text", { x: middle, y: HIGH - 5, "text-anchor": "middle", fill: "#55616e" }, "age (weeks)"));
    svg.append(element("title", {}, title));
  }

  function histogram(svg, points, y, [low, high]) {
    const counts = new Array(BARS).fill(0);
    for (const point of points) {
      counts[Math.max(0, Math.min(BARS - 1, Math.floor(((point.value - low) / (high - low)) * BARS)))]++;
    }
    const most = Math.max(...counts), edge = WIDE - RIGHT + 12, step = (high - low) / BARS;
    counts.forEach((count, n) => {
      if (!count) return;
      const top = y(low + (n + 1) * step), long = (count / most) * (RIGHT - 24);
      const bar = element("rect", { x: edge, y: top + 0.5, width: long, height: Math.max(1, y(low + n * step) - top - 1), fill: "#7f8d9b" });
      bar.append(element("title", {}, `${count} images`));
      svg.append(bar);
    });
    svg.append(element("text", { x: edge, y: HIGH - 5, fill: "#55616e" }, `up to ${most}`));
    svg.append(element("text", { x: edge, y: HIGH - BOTTOM + 15, fill: "#55616e" }, "images"));
  }

  // Draws into `box` the `rows` that have an age and a `value(row)`; `pick(row)` on a click, `point(row or null)` under the mouse.
  function draw(box, rows, { value, name, fixed, none, pick, point }) {
    const points = [];
    for (const row of rows) {
      const found = value(row);
      if (found !== null && found !== undefined && row.age !== null) points.push({ row, age: row.age, value: found });
    }
    box.replaceChildren();
    if (!points.length) {
      const text = document.createElement("p");
      text.className = "none";
      text.textContent = none;
      box.append(text);
      return;
    }
    const across = range(points.map((p) => p.age)), upward = range(points.map((p) => p.value), fixed);
    const x = (age) => LEFT + ((age - across[0]) / (across[1] - across[0])) * (WIDE - LEFT - RIGHT);
    const y = (height) => HIGH - BOTTOM - ((height - upward[0]) / (upward[1] - upward[0])) * (HIGH - TOP - BOTTOM);
    const title = `${name} against age of ${points.length} images`;
    const svg = element("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": title });
    axes(svg, x, y, across, upward, title);
    const radius = points.length > 300 ? 2.5 : 4;
    let rings = "";
    for (const p of points) {
      p.x = Number(x(p.age).toFixed(1));
      p.y = Number(y(p.value).toFixed(1));
      if (p.row.outlier) rings += circle(p.x, p.y, 2.4 * radius);
    }
    for (const [kind, color] of KINDS) { // the graver ones on top
      const path = points.filter((p) => p.row.verdict === kind).map((p) => MARKS[kind](p.x, p.y, radius)).join("");
      if (path) svg.append(element("path", { d: path, fill: color, "fill-opacity": 0.75, class: kind + "-marks" }));
    }
    if (rings) svg.append(element("path", { d: rings, fill: "none", stroke: "#111", "stroke-width": 1.3, class: "rings" }));
    histogram(svg, points, y, upward);
    const halo = element("circle", { r: 8, fill: "none", stroke: "#0b57a4", "stroke-width": 2.5, visibility: "hidden" });
    svg.append(halo);
    listen(svg, points, halo, pick, point);
    box.append(svg);
  }

  function listen(svg, points, halo, pick, point) {
    const nearest = (event) => {
      const scale = WIDE / svg.getBoundingClientRect().width;
      const at = svg.getBoundingClientRect(), x = (event.clientX - at.left) * scale, y = (event.clientY - at.top) * scale;
      let best = null, least = 14 ** 2;
      for (const p of points) {
        const distance = (p.x - x) ** 2 + (p.y - y) ** 2;
        if (distance < least) { least = distance; best = p; }
      }
      return best;
    };
    svg.addEventListener("mousemove", (event) => {
      const found = nearest(event);
      halo.setAttribute("visibility", found ? "visible" : "hidden");
      svg.style.cursor = found ? "pointer" : "default";
      if (found) { halo.setAttribute("cx", found.x); halo.setAttribute("cy", found.y); }
      point(found ? found.row : null);
    });
    svg.addEventListener("mouseleave", () => { halo.setAttribute("visibility", "hidden"); point(null); });
    svg.addEventListener("click", (event) => { const found = nearest(event); if (found) pick(found.row); });
  }

  return { draw };
})();
