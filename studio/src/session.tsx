// What the person at the page has chosen; shared by all its pages and forgotten with them.
import { createContext, type ReactNode, useContext, useEffect, useMemo, useRef, useState } from "react";
import { type Answer, type Card, get, type History, post, query, type Question, type State } from "./api";

export interface Session {
  state: State;
  refresh: () => Promise<void>;
  user: string | null;
  setUser: (user: string | null) => void;
  history: History | null;
  historyError: string | null;
  clicks: Card[];
  add: (card: Card) => Promise<void>;
  remove: (place: number) => void;
  clear: () => void;
  keep: boolean;
  setKeep: (keep: boolean) => void;
  k: number;
  setK: (k: number) => void;
  filter: string;
  setFilter: (filter: string) => void;
  version: string;
  setVersion: (name: string) => void;
  diversity: number | null;
  setDiversity: (value: number | null) => void;
  explore: number | null;
  setExplore: (value: number | null) => void;
  question: Question;
  turn: number;
  again: () => void;
}

const Context = createContext<Session | null>(null);

export function useSession(): Session {
  const session = useContext(Context);
  if (session === null) throw new Error("no session");
  return session;
}

export function SessionProvider({ state, refresh, first, children }: { state: State; refresh: () => Promise<void>; first: string | null; children: ReactNode }) {
  const [user, choose] = useState<string | null>(first);
  const [history, setHistory] = useState<History | null>(null);
  const [historyError, setHistoryError] = useState<string | null>(null);
  const [clicks, setClicks] = useState<Card[]>([]);
  const [keep, setKeep] = useState(false);
  const [k, setK] = useState(12);
  const [filter, setFilter] = useState("");
  const [chosen, setVersion] = useState(state.current);
  const [diversity, setDiversity] = useState<number | null>(null);
  const [explore, setExplore] = useState<number | null>(null);
  const [turn, setTurn] = useState(0);
  const version = state.versions.some((one) => one.name === chosen) ? chosen : state.current;
  const dials = state.versions.find((one) => one.name === version)?.dials;

  useEffect(() => {
    setHistory(null);
    setHistoryError(null);
    if (user === null) return;
    const stop = new AbortController();
    get<History>(query("/studio/api/history", { user, k: 40 }), stop.signal)
      .then(setHistory)
      .catch((error: Error) => stop.signal.aborted || setHistoryError(error.message));
    return () => stop.abort();
  }, [user]);

  const session = useMemo<Session>(() => {
    const question: Question = { k, version };
    if (user !== null) question.user = user;
    if (user === null || clicks.length > 0) question.history = clicks.map((card) => card.item);
    if (filter.trim() !== "") question.filter = filter.trim();
    if (diversity !== null && dials?.diversity !== undefined) question.diversity = diversity;
    if (explore !== null && dials?.explore !== undefined) question.explore = explore;
    return {
      state, refresh, user, history, historyError, clicks, keep, k, setK, filter, setFilter, version, diversity, setDiversity, explore, setExplore, question, turn,
      setKeep,
      setUser: (next) => {
        choose(next);
        setClicks([]);
      },
      setVersion: (name) => {
        setVersion(name);
        setDiversity(null);
        setExplore(null);
      },
      add: async (card) => {
        if (!keep || user === null) {
          setClicks((before) => [...before, card]);
          return;
        }
        await post("/events", { user, item: card.item, event: "click" });
        setHistory(await get<History>(query("/studio/api/history", { user, k: 40 })));
        setTurn((before) => before + 1);
      },
      remove: (place) => setClicks((before) => before.filter((_, n) => n !== place)),
      clear: () => setClicks([]),
      again: () => setTurn((before) => before + 1),
    };
  }, [state, refresh, user, history, historyError, clicks, keep, k, filter, version, diversity, explore, dials, turn]);

  return <Context value={session}>{children}</Context>;
}

/** The answer to a question, asked anew when it changes; the last answer stays until the next one is there. */
export function useAnswer(question: Question | null, turn = 0): { answer: Answer | null; error: string | null; waiting: boolean } {
  const [found, setFound] = useState<{ answer: Answer | null; error: string | null }>({ answer: null, error: null });
  const [waiting, setWaiting] = useState(false);
  const key = question === null ? null : JSON.stringify(question);
  const first = useRef(true);
  useEffect(() => {
    if (key === null) return;
    const stop = new AbortController();
    setWaiting(true);
    const timer = setTimeout(
      () => {
        post<Answer>("/studio/api/ask", JSON.parse(key), stop.signal)
          .then((answer) => setFound({ answer, error: null }))
          .catch((error: Error) => stop.signal.aborted || setFound((before) => ({ answer: before.answer, error: error.message })))
          .finally(() => stop.signal.aborted || setWaiting(false));
      },
      first.current ? 0 : 90,
    );
    first.current = false;
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key, turn]);
  return { ...found, waiting };
}
