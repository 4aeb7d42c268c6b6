// What the service answers, and how it is asked. A token lives in this module alone: a reload forgets it.

export interface Card {
  item: string;
  title: string;
  category: string | string[] | null;
  price: number | null;
  picture: boolean;
  attributes: Record<string, string | number | boolean | string[] | null>;
}

export interface Version {
  name: string;
  system: string;
  items: number;
  share: number;
  shadow: boolean;
  kind: "funnel" | "system";
  dials: { diversity?: number; explore?: number };
}

export interface State {
  current: string;
  versions: Version[];
  offered: string[];
  items: number;
  users: number;
  store: boolean;
  pictures: number;
  data: boolean;
  name: string;
  columns: { title: string | null; category: string | null; price: string | null; groups: string[] };
  categories: string[];
}

export interface History {
  user: string;
  known: boolean;
  events: number;
  live: number;
  items: Card[];
}

export interface Source {
  name: string;
  rank: number;
  score: number;
}

export interface Why {
  history?: { item: string; similarity: number }[];
  history_by?: string;
  attention?: { item: string; weight: number }[];
  attention_by?: string;
  parts?: { part: string; score: number }[];
  parts_by?: string;
  neighbours?: { item: string; score: number }[];
  neighbours_by?: string;
  stages?: Record<string, number | null>;
}

export interface MapPoint {
  item: string;
  x: number;
  y: number;
  title: string;
  category: string | null;
  count: number;
  card: Card;
}

export interface ItemMap {
  what: string;
  how: string;
  category: string | null;
  categories: string[];
  points: MapPoint[];
}

export interface Row {
  item: string;
  rank: number;
  score: number;
  sources: Source[];
  why: Why | null;
  propensity: number;
  matches: { attribute: string; value: string; items: number }[];
  card: Card;
}

export interface Stage {
  stage: string;
  count: number;
  added?: number | string[];
  dropped?: number | string[];
  moved?: number;
  items?: string[];
}

export interface Trace {
  known: number;
  catalogue: number;
  milliseconds: Record<string, number>;
  stages: Stage[];
}

export interface Answer {
  request_id: string;
  variant: string;
  fallback: string | null;
  degraded: string | null;
  items: Row[];
  trace?: Trace;
  cards: Record<string, Card>;
}

export interface Question {
  user?: string;
  history?: string[];
  k: number;
  filter?: string;
  diversity?: number;
  explore?: number;
  version?: string;
}

export interface Bar {
  value: string;
  count: number;
}

export interface Facts {
  name: string;
  users: number;
  items: number;
  events: number;
  density: number;
  span: { first: string; last: string; days: number } | null;
  events_per_user: Spread;
  events_per_item: Spread;
  events_by_type: Record<string, number>;
  repeats_share: number;
  popularity: { gini: number; top_1pct_share: number; top_10pct_share: number };
  text_coverage: { items: number } | null;
  picture_coverage: { items: number } | null;
  cold: { items_without_events: number; users_without_events: number; items_only_in_last_tenth: number | null };
  rejected: number;
  repaired: number;
}

export interface Spread {
  min: number;
  median: number;
  mean: number;
  p90: number;
  max: number;
}

export interface Doubling {
  from: number;
  to: number;
  count: number;
}

export type AttributeShape =
  | { name: string; kind: "values"; distinct: number; bars: Bar[] }
  | { name: string; kind: "number"; edges: number[]; counts: number[]; median: number };

export interface DataSet {
  facts: Facts;
  shapes: {
    events_per_user: Doubling[];
    events_per_item: Doubling[];
    popularity: { items: number; events: number }[];
    over_time: { grain: string; bars: { at: string; count: number }[] } | null;
    attributes: AttributeShape[];
  };
}

export type Metrics = Record<string, number>;
export type Intervals = Record<string, [number, number]>;

export interface RunRow {
  name: string;
  system: string;
  family: string | null;
  data: string;
  seconds: number | null;
  epochs: number | null;
  validation: Metrics | null;
  test: { metrics: Metrics; ci: Intervals | null; users: number } | null;
  curve: Record<string, unknown>[];
}

export interface Comparison {
  name: string;
  data: string | null;
  users: number;
  metric: string;
  systems: { system: string; seeds: number[] | null; mean: Metrics; sd: Metrics | null; ci: Intervals | null }[];
  tests: { metric: string; a: string; b: string; diff: number; ci: [number, number]; p: number; p_holm: number; n: number }[];
  sentences: string[] | null;
  warnings: string[] | null;
}

export interface FunnelRow {
  name: string;
  funnel: string;
  k: number;
  asked: Record<string, { queries: number; stages: { stage: string; candidates: number; ceiling: number | null; metrics: Metrics }[] }>;
  milliseconds: Record<string, { p50: number; p99: number }>;
}

export interface Runs {
  runs: RunRow[];
  comparisons: Comparison[];
  funnels: FunnelRow[];
}

export interface Rate {
  variant: string;
  requests: number;
  shown: number;
  clicked: number;
  rate: number;
  low: number;
  high: number;
}

export class Refused extends Error {
  status: number;

  constructor(status: number, sentence: string) {
    super(sentence);
    this.status = status;
  }
}

let token: string | null = null;
const listeners = new Set<() => void>();

export function setToken(value: string | null): void {
  token = value;
  for (const tell of listeners) tell();
}

export function hasToken(): boolean {
  return token !== null;
}

/** Told when the service wants a token that it was not given. */
export function onTokenChange(tell: () => void): () => void {
  listeners.add(tell);
  return () => listeners.delete(tell);
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token !== null) headers.set("authorization", `Bearer ${token}`);
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, headers, credentials: "omit" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refused(0, "The service cannot be reached: is it still running?");
  }
  if (answer.ok) return answer;
  const told: unknown = await answer.json().catch(() => null);
  const sentence = told !== null && typeof told === "object" && "error" in told ? String(told.error) : `The service answered ${answer.status}.`;
  throw new Refused(answer.status, sentence);
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await call(path, { signal: signal ?? null })).json()) as T;
}

export async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: signal ?? null };
  return (await (await call(path, init)).json()) as T;
}

export function query(path: string, values: Record<string, string | number | string[]>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) for (const one of Array.isArray(value) ? value : [value]) search.append(name, String(one));
  return `${path}?${search}`;
}

export function pictureAddress(item: string, size: number): string {
  return query("/studio/api/picture", { item, size });
}

/** A picture as an address of this page's own memory: where a token is wanted, an <img> cannot carry it. */
export async function pictureBlob(item: string, size: number, signal: AbortSignal): Promise<string> {
  return URL.createObjectURL(await (await call(pictureAddress(item, size), { signal })).blob());
}
