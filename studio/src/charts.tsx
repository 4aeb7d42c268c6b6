// Small charts as SVG: every one has a name and a sentence of what it shows, and numbers are set in the page's own type.
import { type ReactNode, useId } from "react";
import { colourOf, number, share } from "./ui";

const WIDTH = 420;
const LONG = 680;

function Chart({ name, about, height, width = WIDTH, children }: { name: string; about: string; height: number; width?: number; children: ReactNode }) {
  const id = useId();
  return (
    <svg className="chart" viewBox={`0 0 ${width} ${height}`} role="img" aria-labelledby={`${id}-t ${id}-d`}>
      <title id={`${id}-t`}>{name}</title>
      <desc id={`${id}-d`}>{about}</desc>
      {children}
    </svg>
  );
}

function nice(most: number): number[] {
  if (most <= 0) return [0];
  const raw = most / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 2.5, 5, 10].find((one) => one * power >= raw) ?? 10) * power;
  const ticks = [];
  for (let tick = 0; tick <= most * 1.0001; tick += step) ticks.push(tick);
  return ticks;
}

function brief(value: number): string {
  if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(2))}M`;
  if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(2))}k`;
  return Number.isInteger(value) ? number(value) : String(Number(value.toPrecision(2)));
}

export function Columns({ name, about, bars, colour = "blue", height = 190 }: { name: string; about: string; bars: { label: string; count: number; tip: string }[]; colour?: string; height?: number }) {
  const left = 38;
  const bottom = 24;
  const most = Math.max(...bars.map((bar) => bar.count), 1);
  const ticks = nice(most);
  const top = Math.max(most, ticks.at(-1) ?? 1);
  const y = (value: number) => 8 + (height - bottom - 8) * (1 - value / top);
  const step = (WIDTH - left - 4) / Math.max(bars.length, 1);
  const every = Math.ceil(bars.length / 7);
  return (
    <Chart name={name} about={about} height={height}>
      {ticks.map((tick) => (
        <g key={tick}>
          <line className="grid" x1={left} x2={WIDTH - 4} y1={y(tick)} y2={y(tick)} />
          <text className="tick end" x={left - 6} y={y(tick) + 4}>
            {brief(tick)}
          </text>
        </g>
      ))}
      {bars.map((bar, n) => (
        <g key={bar.label + String(n)}>
          <rect className={`fill-${colour}`} x={left + n * step + step * 0.12} width={step * 0.76} y={y(bar.count)} height={Math.max(y(0) - y(bar.count), bar.count > 0 ? 1 : 0)} rx={1.5}>
            <title>{bar.tip}</title>
          </rect>
          {n % every === 0 && (
            <text className="tick middle" x={left + (n + 0.5) * step} y={height - 7}>
              {bar.label}
            </text>
          )}
        </g>
      ))}
    </Chart>
  );
}

export function Rows({ bars, total, colour = "teal" }: { bars: { value: string; count: number }[]; total: number; colour?: string }) {
  const most = Math.max(...bars.map((bar) => bar.count), 1);
  return (
    <table className="rows">
      <tbody>
        {bars.map((bar) => (
          <tr key={bar.value}>
            <th scope="row">{bar.value}</th>
            <td className="bar-cell">
              <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
                <rect className={`fill-${colour}`} width={(100 * bar.count) / most} height="8" rx="1" />
              </svg>
            </td>
            <td className="figure">{number(bar.count)}</td>
            <td className="figure faint">{share(bar.count / Math.max(total, 1))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Curve({ name, about, points, colour = "violet", height = 190 }: { name: string; about: string; points: { x: number; y: number }[]; colour?: string; height?: number }) {
  const left = 42;
  const bottom = 24;
  const x = (value: number) => left + (WIDTH - left - 10) * value;
  const y = (value: number) => 8 + (height - bottom - 8) * (1 - value);
  const path = points.map((point, n) => `${n === 0 ? "M" : "L"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("");
  return (
    <Chart name={name} about={about} height={height}>
      {[0, 0.5, 1].map((tick) => (
        <g key={tick}>
          <line className="grid" x1={left} x2={WIDTH - 10} y1={y(tick)} y2={y(tick)} />
          <text className="tick end" x={left - 6} y={y(tick) + 4}>
            {share(tick, 0)}
          </text>
          <text className={tick === 1 ? "tick end" : "tick middle"} x={x(tick)} y={height - 7}>
            {share(tick, 0)}
          </text>
        </g>
      ))}
      <line className="even" x1={x(0)} y1={y(0)} x2={x(1)} y2={y(1)} />
      <path className={`area-${colour}`} d={`${path}L${x(1)} ${y(0)}L${x(0)} ${y(0)}z`} />
      <path className={`line-${colour}`} d={path} />
    </Chart>
  );
}

export function Lines({ name, about, series, height = 220 }: { name: string; about: string; series: { name: string; points: { x: number; y: number }[] }[]; height?: number }) {
  const left = 46;
  const bottom = 26;
  const every = series.flatMap((one) => one.points);
  const last = Math.max(...every.map((point) => point.x), 1);
  const first = Math.min(...every.map((point) => point.x), last);
  const high = Math.max(...every.map((point) => point.y));
  const low = Math.min(...every.map((point) => point.y), high);
  const floor = low >= 0 && low < 0.6 * high ? 0 : low - 0.05 * (high - low || 1);
  const x = (value: number) => left + (LONG - left - 12) * (last === first ? 0.5 : (value - first) / (last - first));
  const y = (value: number) => 10 + (height - bottom - 10) * (1 - (value - floor) / (high - floor || 1));
  const ticks = nice(high - floor).map((tick) => floor + tick);
  const names = series.map((one) => one.name);
  return (
    <>
      <Chart name={name} about={about} height={height} width={LONG}>
        {ticks.map((tick) => (
          <g key={tick}>
            <line className="grid" x1={left} x2={LONG - 12} y1={y(tick)} y2={y(tick)} />
            <text className="tick end" x={left - 6} y={y(tick) + 4}>
              {brief(tick)}
            </text>
          </g>
        ))}
        <text className="tick middle" x={x(first)} y={height - 7}>
          {first}
        </text>
        <text className="tick end" x={LONG - 12} y={height - 7}>
          epoch {last}
        </text>
        {series.map((one) => (
          <g key={one.name}>
            <path className={`line-${colourOf(one.name, names)}`} d={one.points.map((point, n) => `${n === 0 ? "M" : "L"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("")} />
            {one.points.length < 25 &&
              one.points.map((point) => <circle key={point.x} className={`fill-${colourOf(one.name, names)}`} cx={x(point.x)} cy={y(point.y)} r={2.4} />)}
          </g>
        ))}
      </Chart>
      <Legend names={names} />
    </>
  );
}

export function Legend({ names }: { names: string[] }) {
  return (
    <ul className="legend">
      {names.map((name) => (
        <li key={name}>
          <span className={`dot bg-${colourOf(name, names)}`} aria-hidden="true" />
          {name}
        </li>
      ))}
    </ul>
  );
}

/** A dot and its interval on a common scale; one table row each. */
export function Interval({ value, ends, low, high, colour, zero = false }: { value: number; ends: [number, number] | null; low: number; high: number; colour: string; zero?: boolean }) {
  const x = (at: number) => (200 * (at - low)) / (high - low || 1);
  return (
    <svg className="interval" viewBox="-4 0 208 16" aria-hidden="true" preserveAspectRatio="none">
      <line className="grid" x1={0} x2={200} y1={8} y2={8} />
      {zero && <line className="axis" x1={x(0)} x2={x(0)} y1={0} y2={16} />}
      {ends && <line className={`reach stroke-${colour}`} x1={x(ends[0])} x2={x(ends[1])} y1={8} y2={8} />}
      <rect className={`fill-${colour}`} x={x(value) - 2.5} y={3} width={5} height={10} rx={1} />
    </svg>
  );
}
