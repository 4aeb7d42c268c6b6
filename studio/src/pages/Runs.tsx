// Runs and comparisons of a folder: curves, tables, intervals.
import { useEffect, useMemo, useState } from "react";
import { type Comparison, type FunnelRow, get, type RunRow, type Runs as Found } from "../api";
import { Interval, Lines } from "../charts";
import { colourOf, milliseconds, number, Panel, seconds, Select, Trouble, Waiting } from "../ui";

export function Runs() {
  const [found, setFound] = useState<Found | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    get<Found>("/studio/api/runs", stop.signal)
      .then(setFound)
      .catch((error: Error) => stop.signal.aborted || setError(error.message));
    return () => stop.abort();
  }, []);
  if (error !== null) return <Trouble sentence={error} />;
  if (found === null) return <Waiting what="Reading the runs…" />;
  const empty = found.runs.length + found.comparisons.length + found.funnels.length === 0;
  return (
    <div className="stack">
      {empty && <p className="hint">There is no run here. Start the service with --runs FOLDER to show those of another folder.</p>}
      {found.comparisons.map((one) => (
        <ComparisonPanel key={one.name} comparison={one} />
      ))}
      {found.funnels.map((one) => (
        <FunnelPanel key={one.name} funnel={one} />
      ))}
      {found.runs.length > 0 && <Curves runs={found.runs} />}
      {found.runs.length > 0 && <RunTable runs={found.runs} />}
    </div>
  );
}

function ComparisonPanel({ comparison }: { comparison: Comparison }) {
  const metrics = Object.keys(comparison.systems[0]?.ci ?? comparison.systems[0]?.mean ?? {});
  const [metric, setMetric] = useState(metrics.includes(comparison.metric) ? comparison.metric : (metrics[0] ?? ""));
  const names = comparison.systems.map((one) => one.system);
  const ends = comparison.systems.flatMap((one) => one.ci?.[metric] ?? [one.mean[metric] ?? 0]);
  const low = Math.min(...ends);
  const high = Math.max(...ends);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  const tests = comparison.tests.filter((one) => one.metric === metric);
  const diffs = tests.flatMap((one) => [...one.ci, 0]);
  const sorted = [...comparison.systems].sort((a, b) => (b.mean[metric] ?? 0) - (a.mean[metric] ?? 0));
  return (
    <Panel title={`Comparison${comparison.name === "comparison" ? "" : ` ${comparison.name}`}`} note={`${comparison.data ? `${comparison.data}, ` : ""}${number(comparison.users)} users of the test part, 95 % intervals`}>
      <Select name="Metric" value={metric} set={setMetric} options={metrics.map((one) => ({ value: one, text: one }))} />
      <div className="scroll" tabIndex={0} role="region" aria-label={`Systems by ${metric}`}>
        <table className="figures wide">
          <thead>
            <tr>
              <th scope="col">system</th>
              <th scope="col">{metric}</th>
              <th scope="col">from</th>
              <th scope="col">to</th>
              <th scope="col" className="drawn">
                <span className="out-of-sight">interval</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {sorted.map((one) => {
              const own = one.ci?.[metric] ?? null;
              const value = one.mean[metric] ?? 0;
              return (
                <tr key={one.system}>
                  <th scope="row">
                    <span className={`dot bg-${colourOf(one.system, names)}`} aria-hidden="true" />
                    {one.system}
                  </th>
                  <td>{value.toFixed(4)}</td>
                  <td className="faint">{own ? own[0].toFixed(4) : "–"}</td>
                  <td className="faint">{own ? own[1].toFixed(4) : "–"}</td>
                  <td className="drawn">
                    <Interval value={value} ends={own} low={low - room} high={high + room} colour={colourOf(one.system, names)} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {tests.length > 0 && (
        <>
          <h3>Differences, paired by user</h3>
          <div className="scroll" tabIndex={0} role="region" aria-label="Tests">
            <table className="figures wide">
              <thead>
                <tr>
                  <th scope="col">pair</th>
                  <th scope="col">difference</th>
                  <th scope="col">p (Holm)</th>
                  <th scope="col" className="drawn">
                    <span className="out-of-sight">interval</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {tests.map((one) => {
                  const sure = one.p_holm < 0.05;
                  return (
                    <tr key={`${one.a}-${one.b}`}>
                      <th scope="row">
                        {one.a} − {one.b}
                      </th>
                      <td>
                        {one.diff >= 0 ? "+" : "−"}
                        {Math.abs(one.diff).toFixed(4)}
                      </td>
                      <td className={sure ? "" : "faint"}>{one.p_holm < 0.0001 ? "< .0001" : one.p_holm.toFixed(4)}</td>
                      <td className="drawn">
                        <Interval value={one.diff} ends={one.ci} low={Math.min(...diffs) - 0.002} high={Math.max(...diffs) + 0.002} colour={sure ? "blue" : "grey"} zero />
                      </td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        </>
      )}
      {(comparison.sentences ?? []).length > 0 && (
        <ul className="sentences">
          {comparison.sentences?.map((one) => (
            <li key={one}>{one}</li>
          ))}
        </ul>
      )}
      {(comparison.warnings ?? []).map((one) => (
        <p key={one} className="notice">
          {one}
        </p>
      ))}
    </Panel>
  );
}

function FunnelPanel({ funnel }: { funnel: FunnelRow }) {
  return (
    <Panel title={`Funnel ${funnel.funnel}`} note={Object.entries(funnel.milliseconds).filter(([name]) => name === "total").map(([, told]) => `p50 ${milliseconds(told.p50)}, p99 ${milliseconds(told.p99)} a request`).join("")}>
      {Object.entries(funnel.asked).map(([name, asked]) => {
        const metrics = ["ndcg", "recall", "intra_list_diversity", "coverage"].map((one) => `${one}@${funnel.k}`).filter((one) => asked.stages.some((stage) => one in stage.metrics));
        return (
          <div key={name} className="scroll" tabIndex={0} role="region" aria-label={`Stages, ${name}`}>
            <table className="figures wide">
              <caption>
                {name}, {number(asked.queries)} questions
              </caption>
              <thead>
                <tr>
                  <th scope="col">stage</th>
                  <th scope="col">items</th>
                  <th scope="col">ceiling</th>
                  {metrics.map((one) => (
                    <th scope="col" key={one}>
                      {one.replaceAll("_", " ")}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {asked.stages.map((stage) => (
                  <tr key={stage.stage}>
                    <th scope="row">{stage.stage}</th>
                    <td>{number(stage.candidates)}</td>
                    <td>{stage.ceiling === null ? "–" : stage.ceiling.toFixed(4)}</td>
                    {metrics.map((one) => (
                      <td key={one}>{stage.metrics[one]?.toFixed(4) ?? "–"}</td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        );
      })}
    </Panel>
  );
}

function Curves({ runs }: { runs: RunRow[] }) {
  const trained = useMemo(() => runs.filter((run) => run.curve.length > 0), [runs]);
  const keys = useMemo(() => {
    const found = new Set<string>();
    for (const run of trained) for (const point of run.curve) for (const [key] of flat(point)) if (key !== "epoch") found.add(key);
    return [...found].sort((a, b) => rankOf(a) - rankOf(b) || a.localeCompare(b));
  }, [trained]);
  const [chosen, setChosen] = useState<string | null>(null);
  const key = chosen !== null && keys.includes(chosen) ? chosen : keys[0];
  if (trained.length === 0 || key === undefined) return null;
  const series = trained
    .slice(0, 8)
    .map((run) => ({
      name: run.name,
      points: run.curve.flatMap((point, n) => {
        const value = flat(point).get(key);
        return value === undefined ? [] : [{ x: typeof point.epoch === "number" ? point.epoch : n + 1, y: value }];
      }),
    }))
    .filter((one) => one.points.length > 0);
  return (
    <Panel title="Curves" note={trained.length > 8 ? `the newest 8 of ${trained.length} trained runs` : undefined}>
      <Select name="Quantity" value={key} set={setChosen} options={keys.map((one) => ({ value: one, text: one }))} />
      <div className="one-chart">
        <Lines name={`${key} by epoch`} about={series.map((one) => `${one.name} ends at ${one.points.at(-1)?.y.toPrecision(4)}`).join("; ")} series={series} />
      </div>
    </Panel>
  );
}

function rankOf(key: string): number {
  return key.includes("ndcg@10") ? 0 : key === "loss" ? 1 : key.includes("@") ? 2 : 3;
}

function flat(point: Record<string, unknown>): Map<string, number> {
  const found = new Map<string, number>();
  for (const [key, value] of Object.entries(point)) {
    if (typeof value === "number") found.set(key, value);
    else if (value !== null && typeof value === "object") for (const [inner, own] of Object.entries(value)) if (typeof own === "number") found.set(inner, own);
  }
  return found;
}

function RunTable({ runs }: { runs: RunRow[] }) {
  const metrics = ["ndcg@10", "recall@10", "recall@20", "mrr@10"].filter((one) => runs.some((run) => run.validation?.[one] !== undefined));
  return (
    <Panel title="Runs" note="metrics on the validation part">
      <div className="scroll" tabIndex={0} role="region" aria-label="Runs">
        <table className="figures wide">
          <thead>
            <tr>
              <th scope="col">run</th>
              <th scope="col" className="word">system</th>
              <th scope="col" className="word">data</th>
              {metrics.map((one) => (
                <th scope="col" key={one}>
                  {one}
                </th>
              ))}
              <th scope="col">epochs</th>
              <th scope="col">fitted in</th>
            </tr>
          </thead>
          <tbody>
            {runs.map((run) => (
              <tr key={run.name}>
                <th scope="row">{run.name}</th>
                <td className="word">{run.system}</td>
                <td className="word">{run.data}</td>
                {metrics.map((one) => (
                  <td key={one}>{run.validation?.[one]?.toFixed(4) ?? "–"}</td>
                ))}
                <td>{run.epochs ?? "–"}</td>
                <td>{run.seconds === null ? "–" : seconds(run.seconds)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
