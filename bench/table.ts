/** A markdown table; all columns but the first are numbers. */
export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, index) => (index === 0 ? "---" : "---:"))), ...rows.map(line)].join(
    "\n",
  );
}

/** `median (least to most)`; nothing where there are no values. */
export function spread(values: readonly number[], show: (value: number) => string): string {
  if (values.length === 0) return "";
  const [least, most] = [show(Math.min(...values)), show(Math.max(...values))];
  return least === most ? least : `${show(median(values))} (${least} to ${most})`;
}

/** How many times as much the median of the dividends is; nothing where either has no values. */
export function ratio(dividends: readonly number[], divisors: readonly number[]): string {
  if (dividends.length === 0 || divisors.length === 0) return "";
  return times(median(dividends) / median(divisors));
}

/** A ratio with as many digits as it deserves: `0.25`, `4.6`, `57`. */
export function times(value: number): string {
  return value.toFixed(value < 1 ? 2 : value < 10 ? 1 : 0);
}

/** Milliseconds as a person reads them: `1.4 ms`, `52 ms`, `1.37 s`. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** Bytes as a person reads them: `812 B`, `3.4 KiB`, `2.1 MiB`. */
export function size(bytes: number): string {
  if (bytes < 1_024) return `${bytes.toFixed(0)} B`;
  const kib = bytes / 1_024;
  return kib < 1_024 ? `${kib.toFixed(kib < 10 ? 1 : 0)} KiB` : `${(kib / 1_024).toFixed(1)} MiB`;
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const [low = 0, high = 0] = [sorted[Math.ceil(half) - 1], sorted[Math.floor(half)]];
  return (low + high) / 2;
}
