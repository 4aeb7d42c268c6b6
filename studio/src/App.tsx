import { type FormEvent, type ReactNode, useCallback, useEffect, useId, useState } from "react";
import { get, onTokenChange, query, Refused, setToken, type State } from "./api";
import { Mark, Strip } from "./glass";
import { Compare } from "./pages/Compare";
import { Data } from "./pages/Data";
import { Funnel } from "./pages/Funnel";
import { Map } from "./pages/Map";
import { Runs } from "./pages/Runs";
import { Slate } from "./pages/Slate";
import { SessionProvider } from "./session";
import { number, Trouble, Waiting } from "./ui";

const PAGES: { key: string; name: string; page: () => ReactNode }[] = [
  { key: "", name: "Slate", page: Slate },
  { key: "compare", name: "Side by side", page: Compare },
  { key: "funnel", name: "Funnel", page: Funnel },
  { key: "map", name: "Map", page: Map },
  { key: "data", name: "Data", page: Data },
  { key: "runs", name: "Runs", page: Runs },
];

function placeOf(): string {
  return window.location.hash.replace(/^#\/?/, "");
}

export function App() {
  const [place, setPlace] = useState(placeOf);
  const [state, setState] = useState<State | null>(null);
  const [first, setFirst] = useState<string | null>(null);
  const [error, setError] = useState<Refused | null>(null);
  const load = useCallback(async () => {
    try {
      const [found, some] = await Promise.all([get<State>("/studio/api/state"), get<{ users: { user: string }[] }>(query("/studio/api/users", { k: 1 }))]);
      setFirst(some.users[0]?.user ?? null);
      setState(found);
      setError(null);
    } catch (error) {
      setError(error instanceof Refused ? error : new Refused(0, String(error)));
    }
  }, []);
  useEffect(() => {
    const go = () => setPlace(placeOf());
    window.addEventListener("hashchange", go);
    return () => window.removeEventListener("hashchange", go);
  }, []);
  useEffect(() => {
    void load();
    return onTokenChange(() => void load());
  }, [load]);
  const current = PAGES.find((one) => one.key === place) ?? PAGES[0];
  const Page = current?.page ?? Slate;
  return (
    <>
      <a className="skip" href="#content" onClick={(event) => { event.preventDefault(); document.getElementById("content")?.focus(); }}>
        To the content
      </a>
      <header className="top">
        <div className="top-line">
          <a className="brand" href="#/" aria-label="Vitrail Studio, to the slate">
            <Mark />
            <span>
              Vitrail <span className="faint">Studio</span>
            </span>
          </a>
          <nav aria-label="Pages">
            {PAGES.map((one) => (
              <a key={one.key} href={`#/${one.key}`} aria-current={one === current ? "page" : undefined}>
                {one.name}
              </a>
            ))}
          </nav>
          {state && (
            <p className="where">
              <b>{state.name}</b> {number(state.users)} users, {number(state.items)} items
            </p>
          )}
        </div>
        <Strip />
      </header>
      <main id="content" tabIndex={-1}>
        <h1 className="out-of-sight">{current?.name}</h1>
        {error !== null && error.status === 401 ? (
          <AskToken />
        ) : error !== null && state === null ? (
          <Trouble sentence={error.message} />
        ) : state === null ? (
          <Waiting what="Opening the studio…" />
        ) : (
          <SessionProvider state={state} refresh={load} first={first}>
            <Page />
          </SessionProvider>
        )}
      </main>
    </>
  );
}

function AskToken() {
  const [typed, setTyped] = useState("");
  const id = useId();
  const send = (event: FormEvent) => {
    event.preventDefault();
    setToken(typed);
  };
  return (
    <form className="panel ask-token" onSubmit={send}>
      <h2>This service wants a token</h2>
      <p className="hint">It must have the role admin, since the studio shows what people did. It is kept in the memory of this page alone; a reload forgets it.</p>
      <div className="field">
        <label htmlFor={id}>Token</label>
        <div className="joined">
          <input id={id} type="password" value={typed} autoComplete="off" autoFocus onChange={(event) => setTyped(event.target.value)} />
          <button type="submit">Open</button>
        </div>
      </div>
    </form>
  );
}
