import { type ReactNode, useEffect, useId, useState } from "react";
import { type Card, hasToken, pictureAddress, pictureBlob } from "./api";

export function number(value: number, digits = 0): string {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function score(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 10000) ? value.toExponential(1) : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 3);
}

export function share(value: number, digits?: number): string {
  return `${(100 * value).toFixed(digits ?? (value < 0.0995 ? 1 : 0))} %`;
}

export function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

export function seconds(value: number): string {
  return value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export function groupsOf(card: Card): string[] {
  return card.category === null ? [] : Array.isArray(card.category) ? card.category : [card.category];
}

export function Picture({ card, size = 240, eager = false }: { card: Card; size?: 96 | 240 | 480; eager?: boolean }) {
  const [blob, setBlob] = useState<string | null>(null);
  const [failed, setFailed] = useState(false);
  const { item, picture } = card;
  useEffect(() => {
    setFailed(false);
    if (!picture || !hasToken()) return;
    const stop = new AbortController();
    let made: string | null = null;
    pictureBlob(item, size, stop.signal)
      .then((address) => {
        made = address;
        setBlob(address);
      })
      .catch(() => stop.signal.aborted || setFailed(true));
    return () => {
      stop.abort();
      if (made !== null) URL.revokeObjectURL(made);
      setBlob(null);
    };
  }, [item, picture, size]);
  if (!picture || failed) {
    const initial = card.title.trim().charAt(0).toUpperCase();
    return (
      <span className="picture blank" aria-hidden="true">
        {initial}
      </span>
    );
  }
  const source = hasToken() ? blob : pictureAddress(item, size);
  // the title stands beside it, so the picture adds nothing to read out
  return <span className="picture">{source && <img src={source} alt="" loading={eager ? "eager" : "lazy"} decoding="async" onError={() => setFailed(true)} />}</span>;
}

export function Price({ value }: { value: number | null }) {
  return value === null ? null : <span className="price">{number(value, 2)}</span>;
}

export function Slider({ name, hint, value, set, unset, disabled, why }: {
  name: string;
  hint: string;
  value: number;
  set: (value: number) => void;
  unset?: (() => void) | undefined;
  disabled?: boolean;
  why?: string;
}) {
  const id = useId();
  return (
    <div className={disabled ? "slider off" : "slider"}>
      <div className="slider-head">
        <label htmlFor={id}>{name}</label>
        {unset && (
          <button type="button" className="plain small" onClick={unset}>
            reset
          </button>
        )}
        <output htmlFor={id}>{disabled ? "–" : value.toFixed(2)}</output>
      </div>
      <input
        id={id}
        type="range"
        min={0}
        max={1}
        step={0.05}
        value={value}
        disabled={disabled}
        aria-describedby={`${id}-hint`}
        onChange={(event) => set(Number(event.target.value))}
        style={{ "--at": `${100 * value}%` } as React.CSSProperties}
      />
      <p id={`${id}-hint`} className="hint">
        {disabled ? why : hint}
      </p>
    </div>
  );
}

export function Select({ name, value, set, options }: { name: string; value: string; set: (value: string) => void; options: { value: string; text: string }[] }) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{name}</label>
      <select id={id} value={value} onChange={(event) => set(event.target.value)}>
        {options.map((one) => (
          <option key={one.value} value={one.value}>
            {one.text}
          </option>
        ))}
      </select>
    </div>
  );
}

export function Trouble({ sentence }: { sentence: string | null }) {
  return sentence === null ? null : (
    <p className="trouble" role="alert">
      {sentence}
    </p>
  );
}

export function Panel({ title, note, children, className }: { title: string; note?: ReactNode; children: ReactNode; className?: string }) {
  const id = useId();
  return (
    <section className={className ? `panel ${className}` : "panel"} aria-labelledby={id}>
      <header className="panel-head">
        <h2 id={id}>{title}</h2>
        {note && <p className="note">{note}</p>}
      </header>
      {children}
    </section>
  );
}

export function Waiting({ what }: { what: string }) {
  return (
    <p className="waiting" role="status">
      {what}
    </p>
  );
}

/** Colours of systems, in the order in which they are first named, the same on a whole page. */
export function colourOf(name: string, names: string[]): string {
  const colours = ["blue", "orange", "teal", "violet", "sky", "ochre", "rose", "grey"];
  return colours[Math.max(names.indexOf(name), 0) % colours.length] ?? "grey";
}
