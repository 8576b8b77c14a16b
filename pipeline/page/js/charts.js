// Charts over time. The home of uPlot.

import uPlot from "../vendor/uPlot.esm.js";
import { h, setText } from "./dom.js";
import { clock } from "./format.js";

const probe = h("i", { class: "unseen", "aria-hidden": "true" });

/** Give a CSS variable's colour as a canvas understands it, in the theme of the moment. */
function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/**
 * A chart of lines over the last minutes, with a legend that shows values and hides lines.
 *
 * @param options `{series: [{label, colour, fill?, width?, off?, format}], height, range, span_s,
 *   bands?, marks?}`; colours are names of CSS variables, `bands()` gives `[from, to, colour]` in s,
 *   `marks()` gives `[at, colour]`.
 */
export class TimeChart {
  #options;
  #plot = null;
  #data;
  #hidden = new Set();
  #cursor = null;

  constructor(options) {
    this.#options = options;
    this.#data = [[], ...options.series.map(() => [])];
    this.legend = h("div", { class: "legend" });
    this.when = h("span", { class: "legend-when" });
    this.canvas = h("div", { class: "plot" });
    this.values = options.series.map((each, index) => this.#legendEntry(each, index));
    this.legend.append(...this.values.map((each) => each.button), this.when);
    this.node = h("figure", { class: "chart", "aria-label": options.label }, this.legend, this.canvas);
    this.watcher = new ResizeObserver(() => this.#resize());
    this.watcher.observe(this.canvas);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.#make();
    this.scheme.addEventListener("change", this.redraw);
    document.addEventListener("theme", this.redraw);
  }

  close() {
    this.watcher.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
    document.removeEventListener("theme", this.redraw);
    this.#plot?.destroy();
  }

  /** Show rows: an array of times in s, then one of values per series. */
  set(data) {
    this.#data = data;
    if (this.#plot) this.#plot.setData(data);
    this.#tellValues();
  }

  #legendEntry(series, index) {
    const value = h("b", {}, "–");
    const button = h(
      "button",
      {
        type: "button",
        class: "legend-entry",
        "aria-pressed": String(!series.off),
        onclick: () => this.#toggle(index),
      },
      h("i", { class: `swatch ${series.swatch}` }),
      series.label,
      value,
    );
    if (series.off) this.#hidden.add(index);
    return { button, value };
  }

  #toggle(index) {
    if (!this.#hidden.delete(index)) this.#hidden.add(index);
    const isShown = !this.#hidden.has(index);
    this.values[index].button.setAttribute("aria-pressed", String(isShown));
    this.#plot?.setSeries(index + 1, { show: isShown });
  }

  #tellValues() {
    const at = this.#cursor ?? this.#data[0].length - 1;
    this.values.forEach(({ value }, index) => {
      setText(value, this.#options.series[index].format(this.#data[index + 1][at]));
    });
    setText(this.when, this.#cursor === null || at < 0 ? "" : clock(this.#data[0][at] * 1000));
  }

  #resize() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    if (!this.#plot) this.#make();
    else if (this.#plot.width !== width) this.#plot.setSize({ width, height: this.#options.height });
  }

  #make() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#settings(width), this.#data, this.canvas);
  }

  #settings(width) {
    const { series, height, range, span_s: spanS } = this.#options;
    const axis = {
      stroke: colour("--dim"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    return {
      width,
      height,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { setScale: false } },
      scales: {
        x: { time: true, range: (plot, low, high) => [(high ?? 1) - spanS(), high ?? 1] },
        y: { range: range ?? ((plot, low, high) => [0, Math.max(1, (high ?? 1) * 1.15)]) },
      },
      axes: [
        {
          ...axis,
          space: 70,
          size: 28,
          values: (plot, ticks) => ticks.map((tick) => clock(tick * 1000).slice(0, spanS() > 600 ? 5 : 8)),
        },
        { ...axis, size: 42, space: 34 },
      ],
      series: [
        {},
        ...series.map((each, index) => ({
          label: each.label,
          show: !this.#hidden.has(index),
          stroke: colour(each.colour),
          width: each.width ?? 1.5,
          fill: each.fill ? colour(each.fill) : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: {
        drawClear: [(plot) => this.#drawBands(plot)],
        draw: [(plot) => this.#drawMarks(plot)],
        setCursor: [
          (plot) => {
            this.#cursor = plot.cursor.left >= 0 ? (plot.cursor.idx ?? null) : null;
            this.#tellValues();
          },
        ],
      },
    };
  }

  #drawBands(plot) {
    const { left, top, width, height } = plot.bbox;
    plot.ctx.save();
    for (const [from, to, name] of this.#options.bands?.() ?? []) {
      const start = Math.max(left, plot.valToPos(from, "x", true));
      const end = Math.min(left + width, plot.valToPos(to, "x", true));
      if (end <= start) continue;
      plot.ctx.globalAlpha = 0.13;
      plot.ctx.fillStyle = colour(name);
      plot.ctx.fillRect(start, top, end - start, height);
      plot.ctx.globalAlpha = 0.9;
      plot.ctx.fillRect(start, top + height - 3 * devicePixelRatio, end - start, 3 * devicePixelRatio);
    }
    plot.ctx.restore();
  }

  #drawMarks(plot) {
    const { left, top, width, height } = plot.bbox;
    const { ctx } = plot;
    ctx.save();
    for (const [at, name] of this.#options.marks?.() ?? []) {
      const x = plot.valToPos(at, "x", true);
      if (x < left || x > left + width) continue;
      ctx.strokeStyle = ctx.fillStyle = colour(name);
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.lineWidth = devicePixelRatio;
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + height);
      ctx.stroke();
      const size = 5 * devicePixelRatio;
      ctx.beginPath();
      ctx.moveTo(x - size, top);
      ctx.lineTo(x + size, top);
      ctx.lineTo(x, top + 1.6 * size);
      ctx.fill();
    }
    ctx.restore();
  }
}
