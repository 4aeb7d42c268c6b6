// A person, what they had, and what they would be shown, and why.
import { type FormEvent, useEffect, useId, useRef, useState } from "react";
import { type Answer, type Card, get, query, type Row } from "../api";
import { useAnswer, useSession } from "../session";
import { colourOf, groupsOf, milliseconds, number, Panel, Picture, Price, score, Select, share, Slider, Trouble, Waiting } from "../ui";

export function Slate() {
  const session = useSession();
  const { answer, error, waiting } = useAnswer(session.question, session.turn);
  const [picked, setPicked] = useState<string | null>(null);
  const [told, setTold] = useState("");
  const row = answer?.items.find((one) => one.item === picked) ?? null;
  const add = async (card: Card) => {
    try {
      await session.add(card);
      setTold(`${card.title} is in the history now; the slate follows.`);
      setPicked(null);
    } catch (error) {
      setTold((error as Error).message);
    }
  };
  return (
    <div className={row ? "slate-page with-why" : "slate-page"}>
      <aside className="rail">
        <Person />
        <Dials />
      </aside>
      <div className="main">
        <Past />
        <SlateGrid answer={answer} error={error} waiting={waiting} picked={picked} pick={setPicked} add={add} />
      </div>
      {row && answer && <WhyPanel row={row} answer={answer} close={() => setPicked(null)} add={add} />}
      <p className="out-of-sight" role="status">
        {told}
      </p>
    </div>
  );
}

function Person() {
  const { user, setUser, state, history, historyError } = useSession();
  const [typed, setTyped] = useState(user ?? "");
  const [users, setUsers] = useState<{ user: string; events: number }[]>([]);
  const id = useId();
  useEffect(() => setTyped(user ?? ""), [user]);
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      get<{ users: { user: string; events: number }[] }>(query("/studio/api/users", { q: typed === user ? "" : typed, k: 12 }), stop.signal)
        .then((found) => setUsers(found.users))
        .catch(() => undefined);
    }, 120);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [typed, user]);
  const choose = (event: FormEvent) => {
    event.preventDefault();
    if (typed.trim() !== "") setUser(typed.trim());
  };
  return (
    <Panel title="Who" className="person">
      <div className="segment" role="group" aria-label="Kind of person">
        <button type="button" aria-pressed={user !== null} onClick={() => user === null && users[0] && setUser(users[0].user)}>
          Someone known
        </button>
        <button type="button" aria-pressed={user === null} onClick={() => setUser(null)}>
          Invented
        </button>
      </div>
      {user !== null ? (
        <>
          <form className="field" onSubmit={choose}>
            <label htmlFor={id}>User</label>
            <div className="joined">
              <input id={id} list={`${id}-users`} value={typed} autoComplete="off" spellCheck={false} onChange={(event) => setTyped(event.target.value)} />
              <button type="submit">Show</button>
            </div>
            <datalist id={`${id}-users`}>
              {users.map((one) => (
                <option key={one.user} value={one.user}>{`${one.events} events`}</option>
              ))}
            </datalist>
          </form>
          <p className="hint">
            {historyError ?? (history === null ? "…" : history.known || history.events > 0 ? `${number(history.events)} events known${history.live > 0 ? `, ${history.live} of them since the model was made` : ""}` : "Nobody knows this one yet: the popular items answer.")}
          </p>
          <ul className="people" aria-label="Some users">
            {users.slice(0, 6).map((one) => (
              <li key={one.user}>
                <button type="button" className="chip" aria-pressed={one.user === user} onClick={() => setUser(one.user)}>
                  {one.user}
                  <span className="faint"> {one.events}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      ) : (
        <p className="hint">Nobody in particular: build a history by picking items below, and watch what {number(state.items)} items turn into.</p>
      )}
    </Panel>
  );
}

function Dials() {
  const session = useSession();
  const version = session.state.versions.find((one) => one.name === session.version);
  const dials = version?.dials ?? {};
  const id = useId();
  const [typed, setTyped] = useState(session.filter);
  return (
    <Panel title="How" className="dials">
      <Select
        name="Model"
        value={session.version}
        set={session.setVersion}
        options={session.state.versions.map((one) => ({ value: one.name, text: one.name === one.system ? one.name : `${one.name} (${one.system})` }))}
      />
      <Slider
        name="Diversity"
        hint="0: by relevance alone; 1: as different as can be."
        value={session.diversity ?? dials.diversity ?? 0}
        set={session.setDiversity}
        unset={session.diversity !== null ? () => session.setDiversity(null) : undefined}
        disabled={dials.diversity === undefined}
        why="This model lays out no page."
      />
      <Slider
        name="Exploration"
        hint="How much of the page is left to chance."
        value={session.explore ?? dials.explore ?? 0}
        set={session.setExplore}
        unset={session.explore !== null ? () => session.setExplore(null) : undefined}
        disabled={dials.explore === undefined}
        why="This model leaves nothing to chance."
      />
      {(session.explore ?? dials.explore ?? 0) > 0 && dials.explore !== undefined && (
        <button type="button" className="quiet" onClick={session.again}>
          Draw again
        </button>
      )}
      <form
        className="field"
        onSubmit={(event) => {
          event.preventDefault();
          session.setFilter(typed);
        }}
      >
        <label htmlFor={id}>Only items where</label>
        <div className="joined">
          <input id={id} value={typed} placeholder={session.state.columns.price ? `${session.state.columns.price} < 20` : "a condition"} spellCheck={false} autoComplete="off" onChange={(event) => setTyped(event.target.value)} />
          <button type="submit">Set</button>
        </div>
      </form>
      <Select name="Places" value={String(session.k)} set={(value) => session.setK(Number(value))} options={["6", "12", "18", "24"].map((one) => ({ value: one, text: one }))} />
      {session.state.store && session.user !== null && (
        <label className="check">
          <input type="checkbox" checked={session.keep} onChange={(event) => session.setKeep(event.target.checked)} />
          <span>
            Tell the service of my clicks
            <span className="hint">They are kept as events of this user.</span>
          </span>
        </label>
      )}
    </Panel>
  );
}

function Past() {
  const session = useSession();
  const { history, clicks, user } = session;
  const strip = useRef<HTMLUListElement>(null);
  const known = history?.items ?? [];
  const count = known.length + clicks.length;
  useEffect(() => {
    const list = strip.current;
    if (list === null) return;
    // the newest are the ones to see, also when the page makes room for the reasons
    const watch = new ResizeObserver(() => {
      list.scrollLeft = list.scrollWidth;
    });
    watch.observe(list);
    list.scrollLeft = list.scrollWidth;
    return () => watch.disconnect();
  }, [count]);
  const note = user !== null && history !== null && history.events > known.length ? `the newest ${known.length} of ${number(history.events)}, oldest first` : "oldest first";
  return (
    <Panel title="History" note={count > 0 ? note : undefined} className="past">
      {count === 0 ? (
        user !== null && history === null ? (
          <Waiting what="Reading the history…" />
        ) : (
          <p className="hint">Nothing yet. Pick something below, or search the catalogue.</p>
        )
      ) : (
        <ul className="strip-list" ref={strip} tabIndex={0} aria-label="Items of the history">
          {known.map((card, n) => (
            <li key={`${card.item}-${n}`} className="thumb" title={`${card.title}${card.category ? `, ${groupsOf(card).join(", ")}` : ""}`}>
              <Picture card={card} size={96} eager />
              <span className="thumb-name">{card.title}</span>
            </li>
          ))}
          {clicks.map((card, n) => (
            <li key={`click-${card.item}-${n}`} className="thumb fresh" title={card.title}>
              <Picture card={card} size={96} eager />
              <span className="thumb-name">{card.title}</span>
              <button type="button" className="remove" aria-label={`Take ${card.title} out of the history`} onClick={() => session.remove(n)}>
                ×
              </button>
            </li>
          ))}
        </ul>
      )}
      <Finder />
    </Panel>
  );
}

function Finder() {
  const session = useSession();
  const [typed, setTyped] = useState("");
  const [found, setFound] = useState<Card[]>([]);
  const id = useId();
  useEffect(() => {
    if (typed.trim() === "") {
      setFound([]);
      return;
    }
    const stop = new AbortController();
    const timer = setTimeout(() => {
      get<{ items: Card[] }>(query("/studio/api/catalogue", { q: typed, k: 8 }), stop.signal)
        .then((answer) => setFound(answer.items))
        .catch(() => undefined);
    }, 120);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [typed]);
  return (
    <div className="finder">
      <label htmlFor={id} className="out-of-sight">
        Add an item of the catalogue to the history
      </label>
      <input id={id} type="search" value={typed} placeholder="Search the catalogue to add to the history" autoComplete="off" onChange={(event) => setTyped(event.target.value)} />
      {session.clicks.length > 0 && (
        <button type="button" className="plain" onClick={session.clear}>
          Forget {session.clicks.length === 1 ? "the click" : `${session.clicks.length} clicks`}
        </button>
      )}
      {typed.trim() !== "" && (
        <ul className="found" aria-label="Found in the catalogue">
          {found.length === 0 && <li className="hint">Nothing begins so.</li>}
          {found.map((card) => (
            <li key={card.item}>
              <button
                type="button"
                className="found-item"
                onClick={() => {
                  void session.add(card);
                  setTyped("");
                }}
              >
                <Picture card={card} size={96} />
                <span className="found-title">
                  <span className="out-of-sight">Add </span>
                  {card.title}</span>
                <Price value={card.price} />
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function SlateGrid({ answer, error, waiting, picked, pick, add }: { answer: Answer | null; error: string | null; waiting: boolean; picked: string | null; pick: (item: string | null) => void; add: (card: Card) => void }) {
  const session = useSession();
  const before = useRef<Map<string, number>>(new Map());
  const shown = useRef<{ answer: Answer; moves: Map<string, number | null> } | null>(null);
  if (answer !== null && shown.current?.answer !== answer) {
    const had = before.current;
    shown.current = { answer, moves: new Map(had.size === 0 ? [] : answer.items.map((row) => [row.item, had.has(row.item) ? (had.get(row.item) ?? 0) - row.rank : null])) };
    before.current = new Map(answer.items.map((row) => [row.item, row.rank]));
  }
  const moves = shown.current?.moves ?? new Map<string, number | null>();
  const fresh = [...moves.values()].filter((move) => move === null).length;
  const names = answer ? [...new Set(answer.items.flatMap((row) => row.sources.map((source) => source.name)))].sort() : [];
  const groups = answer ? new Set(answer.items.flatMap((row) => groupsOf(row.card))).size : 0;
  const total = answer?.trace ? Object.values(answer.trace.milliseconds).reduce((sum, one) => sum + one, 0) : null;
  const facts = answer && [
    `${answer.items.length} of ${number(session.state.items)} items`,
    ...(groups > 1 ? [`${groups} ${session.state.columns.category === "category" ? "categories" : "groups"}`] : []),
    ...(moves.size > 0 ? [fresh > 0 ? `${fresh} new on the page` : "the same items as before"] : []),
    ...(total === null ? [] : [milliseconds(total)]),
  ];
  return (
    <Panel title="Slate" note={facts?.join(" · ")} className={waiting ? "slate waiting-soft" : "slate"}>
      <Trouble sentence={error} />
      {answer?.fallback && <p className="notice">Nothing personal is known yet: these are the {answer.fallback} items.</p>}
      {answer?.degraded && <p className="notice">{answer.degraded === "rank" ? "The ranker was late: this is the order of retrieval." : answer.degraded}</p>}
      {answer === null && error === null && <Waiting what="Asking…" />}
      <ol className="grid-list" aria-label="Recommended items">
        {answer?.items.map((row) => (
          <Tile key={row.item} row={row} names={names} move={moves.get(row.item)} picked={row.item === picked} pick={pick} add={add} />
        ))}
      </ol>
      {names.length > 1 && (
        <p className="legend-line">
          Found by{" "}
          {names.map((name) => (
            <span key={name} className="legend-item">
              <span className={`dot bg-${colourOf(name, names)}`} aria-hidden="true" />
              {name}
            </span>
          ))}
        </p>
      )}
    </Panel>
  );
}

function Tile({ row, names, move, picked, pick, add }: { row: Row; names: string[]; move: number | null | undefined; picked: boolean; pick: (item: string | null) => void; add: (card: Card) => void }) {
  const card = row.card;
  return (
    <li className={picked ? "tile picked" : "tile"}>
      <button type="button" className="tile-open" aria-pressed={picked} onClick={() => pick(picked ? null : row.item)}>
        <Picture card={card} eager={row.rank <= 12} />
        <span className="out-of-sight">Why {card.title}? Place </span>
        <span className="rank">{row.rank}</span>
        {move === null && <span className="move new">new</span>}
        {typeof move === "number" && move !== 0 && (
          <span className={move > 0 ? "move up" : "move down"} title={move > 0 ? `${move} up` : `${-move} down`}>
            {move > 0 ? `▲${move}` : `▼${-move}`}
          </span>
        )}
      </button>
      <div className="tile-text">
        <p className="tile-title">{card.title}</p>
        <p className="tile-line">
          <span className="faint">{groupsOf(card)[0]}</span>
          <Price value={card.price} />
        </p>
        <div className="tile-foot">
          <ul className="sources" aria-label="Found by">
            {row.sources.map((source) => (
              <li key={source.name} title={`${source.name}: rank ${source.rank}, score ${score(source.score)}`}>
                <span className={`dot bg-${colourOf(source.name, names)}`} aria-hidden="true" />
                <span className="out-of-sight">{source.name} rank </span>
                {source.rank}
              </li>
            ))}
          </ul>
          <button type="button" className="add" onClick={() => add(card)}>
            + add<span className="out-of-sight"> {card.title} to the history</span>
          </button>
        </div>
      </div>
    </li>
  );
}

const STAGES: Record<string, string> = { fuse: "fused", rank: "ranked", arrange: "arranged", page: "on the page" };

function WhyPanel({ row, answer, close, add }: { row: Row; answer: Answer; close: () => void; add: (card: Card) => void }) {
  const { card, why } = row;
  const heading = useRef<HTMLHeadingElement>(null);
  const id = useId();
  useEffect(() => heading.current?.focus({ preventScroll: true }), [row.item]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => event.key === "Escape" && close();
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [close]);
  // a place at a stage that this funnel does not have says nothing
  const had = new Set(answer.trace?.stages.map((one) => one.stage.split(" ")[0] ?? ""));
  const stages = Object.entries(why?.stages ?? {}).filter((one): one is [string, number] => one[1] !== null && (one[0] === "fuse" || had.has(one[0])));
  const most = Math.max(...(why?.attention ?? []).map((one) => one.weight), 0.0001);
  const through = Math.max(...(why?.neighbours ?? []).map((one) => one.score), 0.0001);
  const nearest = Math.max(...(why?.history ?? []).map((one) => one.similarity), 0.0001);
  return (
    <aside className="why" aria-labelledby={id}>
      <button type="button" className="close" aria-label="Close" onClick={close}>
        ×
      </button>
      <Picture card={card} size={480} />
      <h2 id={id} ref={heading} tabIndex={-1}>
        {card.title}
      </h2>
      <p className="why-line">
        <span className="faint">{groupsOf(card).join(", ")}</span>
        <Price value={card.price} />
      </p>
      <button type="button" className="primary" onClick={() => add(card)}>
        Add to the history
      </button>

      <h3>Found by</h3>
      <table className="figures">
        <thead>
          <tr>
            <th scope="col">source</th>
            <th scope="col">rank</th>
            <th scope="col">score</th>
          </tr>
        </thead>
        <tbody>
          {row.sources.map((source) => (
            <tr key={source.name}>
              <th scope="row">{source.name}</th>
              <td>{source.rank}</td>
              <td>{score(source.score)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {stages.length > 0 && (
        <p className="path">
          {stages.map(([stage, rank], n) => (
            <span key={stage}>
              {n > 0 && <span className="faint"> → </span>}
              {STAGES[stage] ?? stage} <b>{rank}</b>
            </span>
          ))}
        </p>
      )}

      {why?.attention && why.attention.length > 0 && (
        <>
          <h3>What carried it</h3>
          <p className="hint">What {why.attention_by} read of the history when it answered (attention).</p>
          <Carried items={why.attention.map((one) => ({ item: one.item, width: one.weight / most, text: share(one.weight) }))} answer={answer} colour="violet" />
        </>
      )}
      {why?.parts && why.parts.length > 0 && (
        <>
          <h3>Parts of the score</h3>
          <p className="hint">What behaviour and each kind of content add to the score of {why.parts_by}.</p>
          <table className="figures">
            <tbody>
              {why.parts.map((one) => (
                <tr key={one.part}>
                  <th scope="row">{one.part}</th>
                  <td className="figure">{score(one.score)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
      {why?.neighbours && why.neighbours.length > 0 && (
        <>
          <h3>Through alike items</h3>
          <p className="hint">Items of alike content that the score of {why.neighbours_by} came through.</p>
          <Carried items={why.neighbours.map((one) => ({ item: one.item, width: Math.max(one.score, 0) / through, text: score(one.score) }))} answer={answer} colour="teal" />
        </>
      )}
      {why?.history && why.history.length > 0 && (
        <>
          <h3>Nearest in the history</h3>
          <p className="hint">Similarity of {why.history_by}: what is close, not what was used.</p>
          <Carried items={why.history.map((one) => ({ item: one.item, width: Math.max(one.similarity, 0) / nearest, text: score(one.similarity) }))} answer={answer} colour="blue" />
        </>
      )}
      {row.matches.length > 0 && (
        <>
          <h3>In common with the history</h3>
          <ul className="matches">
            {row.matches.map((one) => (
              <li key={`${one.attribute}-${one.value}`}>
                <span className="faint">{one.attribute}</span> {one.value} <span className="count">×{one.items}</span>
              </li>
            ))}
          </ul>
        </>
      )}
      {row.propensity < 0.9995 && (
        <p className="hint">
          It stands at place {row.rank} with a chance of <b>{share(row.propensity)}</b>.
        </p>
      )}
      {Object.keys(card.attributes).length > 0 && (
        <details>
          <summary>Everything known of it</summary>
          <dl className="attributes">
            <dt>item</dt>
            <dd>{card.item}</dd>
            {Object.entries(card.attributes).map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{Array.isArray(value) ? value.join(", ") : typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : String(value)}</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </aside>
  );
}

function Carried({ items, answer, colour }: { items: { item: string; width: number; text: string }[]; answer: Answer; colour: string }) {
  return (
    <ul className="carried">
      {items.map((one) => {
        const card = answer.cards[one.item];
        return (
          <li key={one.item}>
            {card && <Picture card={card} size={96} />}
            <span className="carried-text">
              <span className="carried-title">{card?.title ?? one.item}</span>
              <svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
                <rect className={`fill-${colour}`} width={100 * Math.min(one.width, 1)} height="4" rx="1" />
              </svg>
            </span>
            <span className="figure">{one.text}</span>
          </li>
        );
      })}
    </ul>
  );
}
