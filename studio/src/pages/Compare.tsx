// Two versions asked the same question, side by side.
import { useEffect, useState } from "react";
import { type Answer, get, post, type Rate } from "../api";
import { useAnswer, useSession } from "../session";
import { groupsOf, milliseconds, number, Panel, Picture, Price, Select, share, Trouble, Waiting } from "../ui";

export function Compare() {
  const session = useSession();
  const names = session.state.versions.map((one) => one.name);
  const [left, setLeft] = useState(session.version);
  const [right, setRight] = useState(names.find((name) => name !== session.version) ?? session.version);
  const question = (version: string) => {
    const { user, history, k, filter } = session.question;
    return { k, version, ...(user !== undefined && { user }), ...(history !== undefined && { history }), ...(filter !== undefined && { filter }) };
  };
  const a = useAnswer(question(left), session.turn);
  const b = useAnswer(question(right), session.turn);
  const inA = new Map(a.answer?.items.map((row) => [row.item, row.rank]));
  const inB = new Map(b.answer?.items.map((row) => [row.item, row.rank]));
  const common = [...inA.keys()].filter((item) => inB.has(item)).length;
  const who = session.user !== null ? `user ${session.user}` : session.clicks.length > 0 ? `an invented history of ${session.clicks.length}` : "nobody in particular";
  return (
    <div className="stack">
      <Panel title="Side by side" note={`for ${who}${session.user !== null && session.clicks.length > 0 ? ` and ${session.clicks.length} clicks` : ""}`}>
        <p className="lead" role="status">
          {a.answer && b.answer ? (
            <>
              <b>
                {common} of {Math.max(inA.size, inB.size)}
              </b>{" "}
              items are on both pages.
            </>
          ) : (
            "Asking both…"
          )}
        </p>
        <div className="sides">
          <Side name="First model" value={left} set={setLeft} names={names} found={a} other={inB} />
          <Side name="Second model" value={right} set={setRight} names={names} found={b} other={inA} />
        </div>
      </Panel>
      <Versions />
    </div>
  );
}

function Side({ name, value, set, names, found, other }: { name: string; value: string; set: (name: string) => void; names: string[]; found: { answer: Answer | null; error: string | null; waiting: boolean }; other: Map<string, number> }) {
  const { answer, error, waiting } = found;
  const groups = answer ? new Set(answer.items.flatMap((row) => groupsOf(row.card))).size : 0;
  const total = answer?.trace ? Object.values(answer.trace.milliseconds).reduce((sum, one) => sum + one, 0) : null;
  return (
    <section className={waiting ? "side waiting-soft" : "side"} aria-label={`Page of the ${name.toLowerCase()}`}>
      <Select name={name} value={value} set={set} options={names.map((one) => ({ value: one, text: one }))} />
      <p className="hint">
        {[groups > 0 ? `${groups} ${groups === 1 ? "category" : "categories"}` : "", total === null ? "" : milliseconds(total), answer?.fallback ? `fallback: ${answer.fallback}` : ""].filter((one) => one !== "").join(" · ") || "\u00a0"}
      </p>
      <Trouble sentence={error} />
      <ol className="list" aria-label={`Items of ${value}`}>
        {answer?.items.map((row) => {
          const there = other.get(row.item);
          return (
            <li key={row.item} className={there === undefined ? "only" : ""}>
              <span className="figure place">{row.rank}</span>
              <Picture card={row.card} size={96} />
              <span className="list-text">
                <span className="list-title">{row.card.title}</span>
                <span className="faint">{groupsOf(row.card)[0]}</span>
              </span>
              <Price value={row.card.price} />
              <span className="there">{there === undefined ? "only here" : there === row.rank ? "same place" : `there at ${there}`}</span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}

function Versions() {
  const { state, refresh } = useSession();
  const [rates, setRates] = useState<Rate[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [loading, setLoading] = useState<string | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    get<{ rates: Rate[] }>("/studio/api/rates", stop.signal)
      .then((found) => setRates(found.rates))
      .catch((error: Error) => stop.signal.aborted || setError(error.message));
    return () => stop.abort();
  }, []);
  const load = async (name: string) => {
    setLoading(name);
    setError(null);
    try {
      await post("/models", { action: "load", name });
      await refresh();
    } catch (error) {
      setError((error as Error).message);
    }
    setLoading(null);
  };
  const loaded = new Set(state.versions.map((one) => one.name));
  const more = state.offered.filter((name) => !loaded.has(name));
  return (
    <Panel title="Versions of the service" note="click rates of the last seven days, 95 % intervals">
      <Trouble sentence={error} />
      <div className="scroll" tabIndex={0} role="region" aria-label="Versions">
        <table className="figures wide">
          <thead>
            <tr>
              <th scope="col">version</th>
              <th scope="col" className="word">system</th>
              <th scope="col">share of users</th>
              <th scope="col">answers</th>
              <th scope="col">clicked</th>
              <th scope="col">95 % interval</th>
            </tr>
          </thead>
          <tbody>
            {state.versions.map((one) => {
              const rate = rates?.find((row) => row.variant === one.name);
              return (
                <tr key={one.name}>
                  <th scope="row">
                    {one.name}
                    {one.name === state.current && <span className="tag">current</span>}
                    {one.shadow && <span className="tag">shadow</span>}
                  </th>
                  <td className="word">{one.system}</td>
                  <td>{share(one.share, 0)}</td>
                  <td>{rate ? number(rate.requests) : "–"}</td>
                  <td>{rate ? share(rate.rate, 1) : "–"}</td>
                  <td>{rate ? `${share(rate.low, 1)} to ${share(rate.high, 1)}` : "–"}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {loading !== null && <Waiting what={`Loading ${loading}…`} />}
      {more.length > 0 && (
        <div className="offer">
          <span className="faint">Beside these could be loaded:</span>
          {more.map((name) => (
            <button key={name} type="button" className="chip" disabled={loading !== null} onClick={() => void load(name)}>
              Load {name}
            </button>
          ))}
        </div>
      )}
    </Panel>
  );
}
