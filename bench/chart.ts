import { duration, times } from "./table.ts";

/** One picture of several: what took how long. */
export interface Panel {
  readonly title: string;
  readonly bars: readonly Bar[];
  /** in milliseconds: what the others' bars say they are so many times of */
  readonly unit: number | undefined;
}

/** The runs of one tool, in milliseconds. */
export interface Bar {
  readonly label: string;
  readonly isOurs: boolean;
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

const width = 880;
const margin = 24;
/** where the bars begin and the longest may end; before it are the names, behind it what a bar says */
const plot = { from: 264, to: 740 };
const row = 22;
const bar = 12;
const panelHead = 34;
const panelFoot = 40;
const head = 62;

/** Words and lines in both modes of a reader's screen; the ground is drawn, so that neither mode depends on the page's. */
const style = `
    .ground { fill: #ffffff; stroke: #d0d7de }
    text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
    .title { font-size: 17px; font-weight: 600 }
    .panel { font-size: 14px; font-weight: 600 }
    .ours { fill: #0969da }
    text.ours { font-weight: 600 }
    .theirs { fill: #afb8c1 }
    .quiet { fill: #656d76 }
    .grid { stroke: #d8dee4 }
    .range { stroke: #1f2328; stroke-opacity: 0.55 }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0d1117; stroke: #30363d }
      text { fill: #e6edf3 }
      .ours, text.ours { fill: #4493f8 }
      .theirs { fill: #57606a }
      .quiet { fill: #9198a1 }
      .grid { stroke: #21262d }
      .range { stroke: #e6edf3 }
    }`;

/** Draws panels below each other as SVG, all on one logarithmic axis, so that bars of different panels compare. */
export function drawChart(title: string, note: string, panels: readonly Panel[]): string {
  const axis = axisOf(panels.flatMap(({ bars }) => bars.flatMap(({ least, most }) => [least, most])));
  let top = head;
  const drawn = panels.map((panel) => {
    const at = top;
    top += panelHead + panel.bars.length * row + panelFoot;
    return drawPanel(panel, at, axis);
  });
  const height = top + margin / 2;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="chart-title chart-note">
  <title id="chart-title">${escaped(title)}</title>
  <desc id="chart-note">${escaped(note)}</desc>
  <style>${style}
  </style>
  <rect class="ground" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>
  ${text(margin, 32, "title", title)}
  ${text(margin, 52, "quiet", note)}
${drawn.join("\n")}
</svg>
`;
}

/** A logarithmic axis over whole decades. */
interface Axis {
  readonly ticks: readonly number[];
  x(ms: number): number;
}

function axisOf(values: readonly number[]): Axis {
  const from = Math.floor(Math.log10(Math.min(...values)));
  const to = Math.log10(Math.max(...values));
  return {
    ticks: Array.from({ length: Math.floor(to) - from + 1 }, (_, index) => 10 ** (from + index)),
    x: (ms) => plot.from + ((Math.log10(ms) - from) / (to - from)) * (plot.to - plot.from),
  };
}

function drawPanel({ title, bars, unit }: Panel, top: number, axis: Axis): string {
  const first = top + panelHead;
  const bottom = first + bars.length * row;
  const grid = axis.ticks.map((ms) => {
    const x = place(axis.x(ms));
    return [
      `  <line class="grid" x1="${x}" y1="${first - 4}" x2="${x}" y2="${bottom + 4}"/>`,
      `  ${text(x, bottom + 18, "quiet", tick(ms), "middle")}`,
    ].join("\n");
  });
  const drawn = bars.map((bar, index) => drawBar(bar, first + index * row, axis, unit));
  return [`  ${text(margin, top + 16, "panel", title)}`, ...grid, ...drawn].join("\n");
}

function drawBar(
  { label, isOurs, median, least, most }: Bar,
  top: number,
  axis: Axis,
  unit: number | undefined,
): string {
  const middle = top + row / 2;
  const [from, to] = [place(axis.x(least)), place(axis.x(most))];
  const who = isOurs ? "ours" : "theirs";
  const said =
    isOurs || unit === undefined ? duration(median) : `${duration(median)} · ${times(median / unit)} ×`;
  return [
    `  ${text(plot.from - 12, middle + 4, isOurs ? "ours" : "", label, "end")}`,
    `  <rect class="${who}" x="${plot.from}" y="${middle - bar / 2}" width="${place(axis.x(median) - plot.from)}" height="${bar}" rx="2"/>`,
    ...(from === to ? [] : [`  <line class="range" x1="${from}" y1="${middle}" x2="${to}" y2="${middle}"/>`]),
    `  ${text(Math.max(to, plot.from) + 8, middle + 4, isOurs ? "ours" : "", said)}`,
  ].join("\n");
}

/** `10 ms`, `1 s` */
function tick(ms: number): string {
  return ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`;
}

function text(x: number, y: number, kind: string, content: string, anchor = "start"): string {
  const named = kind === "" ? "" : ` class="${kind}"`;
  const anchored = anchor === "start" ? "" : ` text-anchor="${anchor}"`;
  return `<text x="${x}" y="${y}"${named}${anchored}>${escaped(content)}</text>`;
}

function place(value: number): number {
  return Number(value.toFixed(1));
}

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
