// One answer as a window: how many items each stage kept, which came and went, and how long it took.
import { useEffect, useState } from "react";
import { type Card, get, query, type Stage, type Trace } from "../api";
import { useAnswer, useSession } from "../session";
import { colourOf, milliseconds, number, Panel, Picture, Trouble, Waiting } from "../ui";

interface Level {
  key: string;
  name: string;
  says: string;
  count: number;
  parts: { name: string; count: number; colour: string; alone: number | null }[];
  ms: number | null;
  items: string[];
}

export function Funnel() {
  const session = useSession();
  const { answer, error } = useAnswer(session.question, session.turn);
  const [cards, setCards] = useState<Record<string, Card>>({});
  const levels = answer?.trace ? levelsOf(answer.trace, answer.items.map((row) => row.item)) : [];
  const wanted = [...new Set(levels.flatMap((level) => level.items.slice(0, SHOWN)))].join("\n");
  useEffect(() => {
    if (wanted === "") return;
    const stop = new AbortController();
    get<{ items: Card[] }>(query("/studio/api/cards", { item: wanted.split("\n") }), stop.signal)
      .then((found) => setCards(Object.fromEntries(found.items.map((card) => [card.item, card]))))
      .catch(() => undefined);
    return () => stop.abort();
  }, [wanted]);
  const total = answer?.trace ? Object.values(answer.trace.milliseconds).reduce((sum, one) => sum + one, 0) : 0;
  const who = session.user !== null ? `user ${session.user}` : "an invented history";
  return (
    <Panel title="The funnel" note={answer?.trace ? `${session.version}, for ${who} with ${number(answer.trace.known)} events · ${milliseconds(total)} in all` : undefined} className="funnel-panel">
      <Trouble sentence={error} />
      {answer === null && error === null && <Waiting what="Asking…" />}
      {answer !== null && levels.length === 0 && <p className="hint">This model tells nothing of its stages.</p>}
      {levels.length > 0 && (
        <>
          <ol className="window" aria-label="Stages of the answer">
            {levels.map((level, n) => (
              <li key={level.key}>
                <div className="window-name">
                  <h3>{level.name}</h3>
                  <p className="hint">{level.says}</p>
                </div>
                <Pane level={level} next={levels[n + 1]} most={levels[0]?.count ?? 1} />
                <p className="window-count">
                  <b>{number(level.count)}</b>
                  <span className="faint">{level.ms === null ? "" : milliseconds(level.ms)}</span>
                </p>
                <ul className="mini" aria-label={`First items after ${level.name}`}>
                  {level.items.slice(0, SHOWN).map((item) => {
                    const card = cards[item];
                    return card ? (
                      <li key={item} title={card.title}>
                        <Picture card={card} size={96} />
                        <span className="out-of-sight">{card.title}</span>
                      </li>
                    ) : null;
                  })}
                </ul>
              </li>
            ))}
          </ol>
          <p className="hint">Widths are logarithmic. Each pane is as wide as what its stage left, and narrows to what the next one takes.</p>
        </>
      )}
    </Panel>
  );
}

const SHOWN = 8;

function Pane({ level, next, most }: { level: Level; next: Level | undefined; most: number }) {
  const width = (count: number) => 14 + 86 * (Math.log(1 + count) / Math.log(1 + most));
  const top = width(level.count);
  const bottom = next ? width(next.count) : top;
  const whole = level.parts.reduce((sum, part) => sum + Math.sqrt(part.count), 0) || 1;
  let at = 0;
  return (
    <svg className="window-pane" viewBox="0 0 100 60" preserveAspectRatio="none" aria-hidden="true">
      {level.parts.map((part) => {
        const from = at / whole;
        at += Math.sqrt(part.count);
        const to = at / whole;
        const x = (of: number, width: number) => 50 - width / 2 + of * width;
        const points = [
          [x(from, top), 1],
          [x(to, top), 1],
          [x(to, bottom), 59],
          [x(from, bottom), 59],
        ];
        return <polygon key={part.name} className={`pane ${part.colour}`} points={points.map((point) => point.join(",")).join(" ")} />;
      })}
    </svg>
  );
}

function levelsOf(trace: Trace, page: string[]): Level[] {
  const levels: Level[] = [];
  const ms = trace.milliseconds;
  const one = (key: string, name: string, says: string, count: number, colour: string, time: number | null, items: string[]): Level => ({
    key, name, says, count, ms: time, items, parts: [{ name, count: Math.max(count, 1), colour, alone: null }],
  });
  levels.push(one("catalogue", "Catalogue", "everything there is", trace.catalogue, "grey", null, []));
  const filter = trace.stages.find((stage) => stage.stage === "filter");
  if (filter) {
    const dropped = typeof filter.dropped === "number" ? filter.dropped : 0;
    levels.push(one("filter", "Filter", dropped > 0 ? `${number(dropped)} may not be shown; nor what was had` : "without what was had", filter.count, "grey", null, []));
  }
  const sources = trace.stages.filter((stage) => stage.stage.startsWith("retrieve "));
  if (sources.length > 0) {
    const names = sources.map((stage) => stage.stage.slice(9)).sort();
    const parts = sources.map((stage) => {
      const name = stage.stage.slice(9);
      return { name, count: Math.max(stage.count, 1), colour: colourOf(name, names), alone: typeof stage.added === "number" ? stage.added : null };
    });
    levels.push({
      key: "retrieve",
      name: "Retrieve",
      says: sources.map((stage, n) => `${parts[n]?.name} ${number(stage.count)}${sources.length > 1 && parts[n]?.alone !== null ? ` (${number(parts[n]?.alone ?? 0)} alone)` : ""}`).join(", "),
      count: sources.reduce((sum, stage) => sum + stage.count, 0),
      parts,
      ms: ms.retrieve ?? null,
      items: sources.length === 1 ? (sources[0]?.items ?? []) : [],
    });
  }
  for (const stage of trace.stages) {
    if (stage === filter || sources.includes(stage)) continue;
    const [kind = stage.stage] = stage.stage.split(" ");
    const name = { fuse: "Fuse", rank: "Rank", arrange: "Arrange", page: "Rules and chance" }[kind] ?? stage.stage;
    const colour = { fuse: "violet", rank: "rose", arrange: "ochre", page: "orange" }[kind] ?? "sky";
    levels.push(one(stage.stage, name, saysOf(stage, kind), stage.count, colour, kind === "fuse" ? null : ((kind === "page" ? ms.explore : ms[kind]) ?? null), stage.items ?? []));
  }
  levels.push(one("slate", "Slate", "what is shown", page.length, "teal", null, page));
  return levels;
}

function saysOf(stage: Stage, kind: string): string {
  if (kind === "fuse") return "one list, duplicates merged";
  const came = Array.isArray(stage.added) ? stage.added.length : 0;
  const detail = stage.stage.includes(" ") && kind === "arrange" ? `${stage.stage.split(" ")[1]}: ` : "";
  if (stage.moved === undefined) return `${detail}laid out`;
  if (came === 0 && stage.moved === 0) return `${detail}the page as it was`;
  return `${detail}${came} came onto the page, ${stage.moved} moved`;
}
