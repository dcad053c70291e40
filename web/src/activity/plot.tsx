import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme } from "../state/theme";
import { texts } from "../texts/en";
import type { Series } from "./series";

export interface PlotProps {
  title: string;
  hint: string;
  labels: readonly string[];
  series: Series;
  show: (value: number) => string;
  /** Marks each value, for lines with gaps. */
  points?: boolean;
  /** Upper end of the axis; else it follows the values. */
  most?: number;
}

const HEIGHT = 190;

/** A drawing of lines over time, with its latest values in words for those who cannot see it. */
export function Plot({ title, hint, labels, series, show, points, most }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const chosenTheme = theme.value;
  const names = labels.join("\n");

  // The canvas takes its colours when it is made, so another theme needs another one.
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const made = new uPlot(options(element, names.split("\n"), show, points, most), [[]], element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [chosenTheme, names, show, points, most]);

  useEffect(() => {
    plot.current?.setData([series.xs, ...series.lines] as uPlot.AlignedData);
  });

  const latest = labels.map((label, line) => {
    const value = series.lines[line]?.findLast((each) => each !== null);
    return { label, text: value === undefined || value === null ? texts.plots.noValue : show(value) };
  });
  const spoken = latest.map(({ label, text }) => `${label} ${text}`).join(", ");
  return (
    <figure class="panel plot">
      <figcaption class="spread">
        <div>
          <h2>{title}</h2>
          <div class="muted small">{hint}</div>
        </div>
        <ul class="row small">
          {latest.map(({ label, text }, line) => (
            <li key={label}>
              <span class="swatch" style={{ "--hue": `var(--hue-${line + 1})` }} /> {label} <strong>{text}</strong>
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={place} class="canvas" role="img" aria-label={texts.plots.latest(title, spoken)} />
    </figure>
  );
}

function options(
  element: HTMLElement,
  labels: readonly string[],
  show: (value: number) => string,
  points: boolean | undefined,
  most: number | undefined,
): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = `12px ${colour("--font")}`;
  return {
    width: Math.max(100, element.clientWidth),
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: true } },
    scales: { y: { range: (_plot, _low, high) => [0, most ?? (high ? high * 1.15 : 1)] } },
    axes: [
      { ...axis, font, size: 28, grid: { show: false }, values: "{HH}:{mm}" },
      { ...axis, font, size: 58, values: (_plot, splits) => splits.map(show) },
    ],
    series: [
      {},
      ...labels.map((label, line) => ({
        label,
        stroke: colour(`--hue-${line + 1}`),
        width: 1.75,
        fill: points ? "transparent" : `color-mix(in srgb, ${colour(`--hue-${line + 1}`)} 12%, transparent)`,
        spanGaps: points ?? false,
        points: { show: points ?? false, size: 5, fill: colour(`--hue-${line + 1}`) },
      })),
    ],
  };
}
