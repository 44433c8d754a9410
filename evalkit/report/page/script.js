"use strict";
// Everything here adds to a page that can be read without it. Texts are only ever set as text.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const data = JSON.parse(document.getElementById("data").textContent);
  const { width, height, left, right, top, bottom } = data.geometry;
  const wide = width - left - right, high = height - top - bottom;
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const clamp = (value, low, limit) => Math.min(limit, Math.max(low, value));

  function make(parent, name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  // Axes: a value's place from 0 to 1, and back.
  const scaled = (axis, value) => (axis.log ? Math.log10(Math.max(value, axis.low)) : value);
  function place(axis, value) {
    const low = scaled(axis, axis.low);
    return (scaled(axis, value) - low) / (scaled(axis, axis.high) - low);
  }
  function valueAt(axis, share) {
    const low = scaled(axis, axis.low);
    const value = low + share * (scaled(axis, axis.high) - low);
    return axis.log ? 10 ** value : value;
  }
  function shown(axis, value) {
    if (axis.percent) return `${(100 * value).toPrecision(4)} %`;
    if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }
  const superscript = (power) =>
    "10" + String(power).replace(/[-0-9]/g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
  function ticks(axis, low, limit) {
    if (axis.log) {
      const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(limit) + 1e-9);
      if (last - first < 1) return linear(low, limit, 1).map((v) => [v, Number(v.toPrecision(3)).toString()]);
      const every = Math.max(1, Math.ceil((last - first) / 7)), marks = [];
      for (let power = first; power <= last; power += every)
        marks.push([10 ** power, power === 0 ? "1" : superscript(power)]);
      return marks;
    }
    const factor = axis.percent ? 100 : 1;
    return linear(low, limit, factor);
    function linear(from, to, times) {
      const least = (times * (to - from)) / 5, power = 10 ** Math.floor(Math.log10(least));
      const step = power * [1, 2, 5, 10].find((m) => power * m >= least * (1 - 1e-9));
      const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), marks = [];
      for (let n = Math.ceil((times * from) / step - 1e-9); n * step <= times * to + step * 1e-9; n++)
        marks.push([(n * step) / times, (n * step).toFixed(digits)]);
      return axis.log ? marks.map((row) => row[0]) : marks;
    }
  }

  class Chart {
    constructor(spec) {
      this.spec = spec;
      this.svg = document.getElementById(spec.key);
      this.figure = this.svg.closest(".plot");
      this.moved = this.svg.querySelector(".data");
      this.over = this.svg.querySelector(".over");
      this.readout = this.figure.querySelector(".readout");
      this.marks = make(this.over, "g", {});
      this.cursor = make(this.over, "g", {});
      this.original = this.svg.querySelector(".axes").cloneNode(true);
      this.range = [0, 1, 0, 1];
      this.state = null;
      this.svg.setAttribute("tabindex", "0");
      this.listen();
    }
    listen() {
      let from = null, box = null;
      const at = (event) => {
        const frame = this.svg.getBoundingClientRect();
        const x = ((event.clientX - frame.left) * width) / frame.width;
        const y = ((event.clientY - frame.top) * height) / frame.height;
        return [clamp(x, left, left + wide), clamp(y, top, top + high)];
      };
      const stop = () => { box?.remove(); from = box = null; };
      this.svg.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "touch" || event.button !== 0) return;
        from = at(event);
        box = make(this.over, "rect", { class: "box" });
        this.svg.setPointerCapture(event.pointerId);
      });
      this.svg.addEventListener("pointermove", (event) => {
        const [x, y] = at(event);
        this.read((x - left) / wide);
        if (!from) return;
        const edges = { x: Math.min(x, from[0]), y: Math.min(y, from[1]), width: Math.abs(x - from[0]), height: Math.abs(y - from[1]) };
        for (const [key, value] of Object.entries(edges)) box.setAttribute(key, value);
      });
      this.svg.addEventListener("pointerup", (event) => {
        if (!from) return;
        const [x, y] = at(event), [a, b] = from;
        stop();
        if (Math.abs(x - a) < 8 || Math.abs(y - b) < 8) return;
        const [x0, x1, y0, y1] = this.range;
        const sides = [x, a].map((v) => x0 + ((v - left) / wide) * (x1 - x0)).sort((p, q) => p - q);
        const levels = [y, b].map((v) => y0 + (1 - (v - top) / high) * (y1 - y0)).sort((p, q) => p - q);
        this.show([...sides, ...levels]);
      });
      this.svg.addEventListener("pointercancel", stop);
      this.svg.addEventListener("pointerleave", () => { if (!from) this.read(null); });
      this.svg.addEventListener("dblclick", () => this.show([0, 1, 0, 1]));
      this.svg.addEventListener("keydown", (event) => this.key(event));
      this.svg.addEventListener("blur", () => this.read(null));
      for (const button of all("[data-zoom]", this.figure))
        button.addEventListener("click", () => this.zoom(button.dataset.zoom));
    }
    key(event) {
      const step = { ArrowLeft: -0.01, ArrowRight: 0.01, PageDown: -0.1, PageUp: 0.1 }[event.key];
      if (step) this.read(clamp((this.place ?? 0.5) + step, 0, 1));
      else if (event.key === "+" || event.key === "=") this.zoom("in");
      else if (event.key === "-") this.zoom("out");
      else if (event.key === "0") this.zoom("reset");
      else if (event.key === "Escape") this.read(null);
      else return;
      event.preventDefault();
    }
    zoom(way) {
      if (way === "reset") return this.show([0, 1, 0, 1]);
      const factor = way === "in" ? 0.6 : 1 / 0.6;
      const pair = (low, limit, centre) => {
        const span = Math.min(1, (limit - low) * factor);
        const start = clamp(low + (limit - low) * centre - span * centre, 0, 1 - span);
        return [start, start + span];
      };
      const [x0, x1, y0, y1] = this.range;
      this.show([...pair(x0, x1, this.place ?? 0.5), ...pair(y0, y1, 0.5)]);
    }
    show(range) {
      const [x0, x1, y0, y1] = range;
      if (x1 - x0 < 1e-4 || y1 - y0 < 1e-4) return;
      this.range = range;
      const whole = x0 === 0 && x1 === 1 && y0 === 0 && y1 === 1;
      const sx = 1 / (x1 - x0), sy = 1 / (y1 - y0);
      const tx = left - sx * (left + x0 * wide);
      const ty = top + high - sy * high * (1 - y0) - sy * top;
      this.moved.setAttribute("transform", `matrix(${sx} 0 0 ${sy} ${tx} ${ty})`);
      for (const text of all(".mark text", this.moved)) text.classList.toggle("off", !whole);
      const axes = this.svg.querySelector(".axes");
      if (whole) axes.replaceWith(this.original.cloneNode(true));
      else this.redraw(axes);
      this.read(null);
      this.draw();
    }
    redraw(axes) {
      const [x0, x1, y0, y1] = this.range, { x: xs, y: ys } = this.spec;
      axes.replaceChildren();
      for (const [value, text] of ticks(xs, valueAt(xs, x0), valueAt(xs, x1))) {
        const x = this.x(value);
        make(axes, "path", { class: "grid", d: `M${x} ${top}V${top + high}` });
        make(axes, "text", { x, y: top + high + 17, "text-anchor": "middle" }, text);
      }
      for (const [value, text] of ticks(ys, valueAt(ys, y0), valueAt(ys, y1))) {
        const y = this.y(value);
        make(axes, "path", { class: "grid", d: `M${left} ${y}H${left + wide}` });
        make(axes, "text", { x: left - 7, y: y + 4, "text-anchor": "end" }, text);
      }
      make(axes, "path", { class: "frame", d: `M${left} ${top}V${top + high}H${left + wide}` });
    }
    x(value) { return left + ((place(this.spec.x, value) - this.range[0]) / (this.range[1] - this.range[0])) * wide; }
    y(value) { return top + (1 - (place(this.spec.y, value) - this.range[2]) / (this.range[3] - this.range[2])) * high; }
    hidden(run) { return all(`[data-run="${run}"]`, this.moved).some((g) => g.classList.contains("off")); }
    read(share) {
      this.place = share;
      this.cursor.replaceChildren();
      if (share === null) { this.readout.textContent = ""; return; }
      const [x0, x1] = this.range, { x: xs, y: ys } = this.spec;
      const value = valueAt(xs, x0 + share * (x1 - x0));
      const x = left + share * wide;
      make(this.cursor, "path", { class: "cross", d: `M${x} ${top}V${top + high}` });
      const texts = [];
      for (const line of this.spec.lines) {
        if (this.hidden(line.run)) continue;
        const height = at(line, value);
        if (height === null) continue;
        texts.push(`${line.name} ${shown(ys, height)}`);
        const y = this.y(height);
        if (y >= top && y <= top + high)
          make(make(this.cursor, "g", { class: `c${line.run % data.colours}` }), "circle", { class: "spot", cx: x, cy: y, r: 4 });
      }
      this.readout.textContent = `at ${shown(xs, value)}: ${texts.join(" · ")}`;
    }
    // Show where a threshold lies: `rates` holds FAR and TAR by run.
    follow(threshold, rates) {
      this.state = { threshold, rates };
      this.draw();
    }
    draw() {
      this.marks.replaceChildren();
      if (!this.state || !this.spec.follows) return;
      if (this.spec.follows === "score") {
        const x = this.x(this.state.threshold);
        if (x >= left && x <= left + wide)
          make(this.marks, "path", { class: "level", d: `M${x} ${top}V${top + high}` });
        return;
      }
      for (const { run, far, tar } of this.state.rates) {
        if (this.hidden(run)) continue;
        const x = this.x(far), y = this.y(this.spec.follows === "roc" ? tar : 1 - tar);
        if (x < left || x > left + wide || y < top - 1 || y > top + high + 1) continue;
        const group = make(this.marks, "g", { class: `c${run % data.colours}` });
        make(group, "circle", { class: "spot", cx: x, cy: y, r: 6 });
      }
    }
  }

  function at(line, value) {
    const { x, y, step } = line;
    if (!x.length || value < x[0]) return null;
    let low = 0, limit = x.length - 1;
    const rising = x[limit] >= x[0];
    if (!rising) return null;
    while (low < limit) {
      const middle = (low + limit + 1) >> 1;
      if (x[middle] <= value) low = middle;
      else limit = middle - 1;
    }
    if (step || low === x.length - 1) return step || x[low] === value ? y[low] : null;
    const span = x[low + 1] - x[low];
    return span ? y[low] + ((y[low + 1] - y[low]) * (value - x[low])) / span : y[low];
  }

  const charts = data.charts.map((spec) => new Chart(spec));
  const within = (element) => charts.filter((chart) => element.contains(chart.svg));

  // Hiding runs.
  for (const button of all(".key")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      const panel = button.closest(".card");
      for (const group of all(`.data [data-run="${button.dataset.run}"]`, panel)) group.classList.toggle("off", !on);
      for (const chart of within(panel)) { chart.read(null); chart.draw(); }
    });
  }

  // The threshold.
  const exponent = (value) => value.toExponential(3).replace(/e([+-])(\d)$/, "e$10$2");
  for (const card of all("[data-threshold]")) {
    const counts = data.thresholds[card.dataset.threshold];
    const slider = card.querySelector("input"), output = card.querySelector("output");
    const panel = card.closest(".panel");
    const count = (value) => value.toLocaleString("en-US");
    const update = () => {
      const index = Number(slider.value), threshold = counts.thresholds[index];
      const text = threshold.toFixed(5);
      output.textContent = text;
      card.querySelector(".at").textContent = text;
      slider.setAttribute("aria-valuetext", text);
      const rates = counts.runs.map((run) => {
        const wrong = run.false[index], lost = run.genuine - run.true[index];
        const row = card.querySelector(`tr[data-run="${run.run}"]`);
        row.querySelector(".far").textContent = exponent(wrong / run.impostors);
        row.querySelector(".fa").textContent = `${count(wrong)} of ${count(run.impostors)}`;
        row.querySelector(".frr").textContent = `${((100 * lost) / run.genuine).toFixed(3)} %`;
        row.querySelector(".fr").textContent = `${count(lost)} of ${count(run.genuine)}`;
        return { run: run.run, far: wrong / run.impostors, tar: 1 - lost / run.genuine };
      });
      for (const chart of within(panel)) chart.follow(threshold, rates);
    };
    slider.value = counts.start;  // a browser may keep the value of an earlier visit
    slider.addEventListener("input", update);
    for (const button of all("[data-index]", card))
      button.addEventListener("click", () => { slider.value = button.dataset.index; update(); });
    update();
  }

  // Tabs.
  const tabs = all('[role="tab"]');
  const select = (chosen, focus) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) chosen.focus();
  };
  for (const tab of tabs) {
    const panel = document.getElementById(tab.getAttribute("aria-controls"));
    panel.setAttribute("role", "tabpanel");
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const here = tabs.indexOf(tab), last = tabs.length - 1;
      const next = { ArrowRight: here === last ? 0 : here + 1, ArrowLeft: here === 0 ? last : here - 1, Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      select(tabs[next], true);
    });
  }
  if (tabs.length) select(tabs[0]);

  // Colours.
  const theme = document.getElementById("theme"), schemes = ["auto", "light", "dark"];
  theme.addEventListener("click", () => {
    const now = schemes[(schemes.indexOf(root.dataset.theme || "auto") + 1) % 3];
    if (now === "auto") delete root.dataset.theme;
    else root.dataset.theme = now;
    theme.querySelector("span").textContent = now;
    theme.setAttribute("aria-label", now === "auto" ? "Colours: as the system has them" : `Colours: ${now}`);
  });

  // Paper shows everything.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
})();
