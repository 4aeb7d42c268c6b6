// The data set: facts and distributions.
import { useEffect, useState } from "react";
import { type AttributeShape, type DataSet, type Doubling, get } from "../api";
import { Columns, Curve, Rows } from "../charts";
import { number, Panel, share, Trouble, Waiting } from "../ui";

export function Data() {
  const [data, setData] = useState<DataSet | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    get<DataSet>("/studio/api/data", stop.signal)
      .then(setData)
      .catch((error: Error) => stop.signal.aborted || setError(error.message));
    return () => stop.abort();
  }, []);
  if (error !== null) return <Trouble sentence={error} />;
  if (data === null) return <Waiting what="Counting…" />;
  const { facts, shapes } = data;
  const tiles: [string, string, string][] = [
    ["users", number(facts.users), `${number(facts.cold.users_without_events)} without an event`],
    ["items", number(facts.items), `${number(facts.cold.items_without_events)} without an event`],
    ["events", number(facts.events), `${share(facts.repeats_share)} repeat an earlier pair`],
    ["of all pairs seen", share(facts.density, facts.density < 0.001 ? 3 : 2), Object.entries(facts.events_by_type).map(([name, count]) => `${number(count)} ${name}`).join(", ")],
    ["days", facts.span ? number(facts.span.days) : "–", facts.span ? `${facts.span.first.slice(0, 10)} to ${facts.span.last.slice(0, 10)}` : "events have no times"],
    ["items with a picture", facts.picture_coverage ? share(facts.picture_coverage.items, 0) : "–", facts.text_coverage ? `${share(facts.text_coverage.items, 0)} have a text` : "no texts"],
  ];
  const half = shapes.popularity.find((point) => point.events >= 0.5);
  return (
    <div className="stack">
      <Panel title={facts.name} note={facts.rejected + facts.repaired > 0 ? `${number(facts.rejected)} rows rejected, ${number(facts.repaired)} repaired when it was read` : undefined}>
        <dl className="tiles">
          {tiles.map(([name, value, note]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
              <dd className="hint">{note}</dd>
            </div>
          ))}
        </dl>
      </Panel>
      <div className="charts">
        <Panel title="Events per user" note={`median ${number(facts.events_per_user.median)}, a tenth have ${number(facts.events_per_user.p90)} or more`}>
          <Columns name="Events per user" about={aboutDoubling(shapes.events_per_user, "users")} bars={doubling(shapes.events_per_user, "users")} />
        </Panel>
        <Panel title="Events per item" note={`median ${number(facts.events_per_item.median)}, a tenth have ${number(facts.events_per_item.p90)} or more`}>
          <Columns name="Events per item" about={aboutDoubling(shapes.events_per_item, "items")} bars={doubling(shapes.events_per_item, "items")} colour="orange" />
        </Panel>
        <Panel title="Popularity" note={half ? `half of the events fall on ${share(half.items, 0)} of the items; Gini ${facts.popularity.gini.toFixed(2)}` : undefined}>
          <Curve
            name="Share of the events by share of the items"
            about={`The most popular tenth of the items has ${share(facts.popularity.top_10pct_share)} of the events.`}
            points={shapes.popularity.map((point) => ({ x: point.items, y: point.events }))}
          />
        </Panel>
        {shapes.over_time && (
          <Panel title="Over time" note={`events a ${shapes.over_time.grain}`}>
            <Columns
              name="Events over time"
              about={`${shapes.over_time.bars.length} bars, one a ${shapes.over_time.grain}`}
              colour="teal"
              bars={shapes.over_time.bars.map((bar) => ({ label: bar.at.slice(2, shapes.over_time?.grain === "hour" ? 13 : 10), count: bar.count, tip: `${bar.at.slice(0, 16)}: ${number(bar.count)} events` }))}
            />
          </Panel>
        )}
        {[...shapes.attributes].sort((a, b) => Number(a.kind === "values") - Number(b.kind === "values")).map((one) => (
          <Attribute key={one.name} shape={one} items={facts.items} />
        ))}
      </div>
    </div>
  );
}

function Attribute({ shape, items }: { shape: AttributeShape; items: number }) {
  if (shape.kind === "values")
    return (
      <Panel title={shape.name} note={shape.distinct > shape.bars.length ? `the ${shape.bars.length} most frequent of ${number(shape.distinct)}` : `${number(shape.distinct)} values`}>
        <Rows bars={shape.bars} total={items} />
      </Panel>
    );
  const bars = shape.counts.map((count, n) => {
    const from = shape.edges[n] ?? 0;
    const to = shape.edges[n + 1] ?? from;
    return { label: String(Number(from.toPrecision(3))), count, tip: `${Number(from.toPrecision(4))} to ${Number(to.toPrecision(4))}: ${number(count)} items` };
  });
  return (
    <Panel title={shape.name} note={`median ${Number(shape.median.toPrecision(4))}`}>
      <Columns name={`Items by ${shape.name}`} about={`Median ${Number(shape.median.toPrecision(4))}`} bars={bars} colour="ochre" />
    </Panel>
  );
}

function doubling(shape: Doubling[], what: string) {
  return shape.map((bar) => {
    const label = bar.from === bar.to ? String(bar.from) : `${bar.from}–${bar.to}`;
    return { label, count: bar.count, tip: `${label} events: ${number(bar.count)} ${what}` };
  });
}

function aboutDoubling(shape: Doubling[], what: string): string {
  const top = shape.reduce((best, bar) => (bar.count > best.count ? bar : best), shape[0] ?? { from: 0, to: 0, count: 0 });
  return `Most ${what} have ${top.from} to ${top.to} events.`;
}
