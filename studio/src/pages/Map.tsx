// The items of the model on a plane: near each other where it holds them alike.
import { useEffect, useMemo, useRef, useState } from "react";
import { get, type ItemMap, type MapPoint } from "../api";
import { useSession } from "../session";
import { colourOf, number, Panel, Picture, Trouble, Waiting } from "../ui";

const SIDE = 640;
const EDGE = 12;
const OTHERS = "others";

export function Map() {
  const { add } = useSession();
  const [map, setMap] = useState<ItemMap | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [chosen, setChosen] = useState(-1);
  const [off, setOff] = useState<Set<string>>(new Set());
  const area = useRef<SVGSVGElement>(null);
  useEffect(() => {
    const stop = new AbortController();
    get<ItemMap>("/studio/api/map", stop.signal)
      .then(setMap)
      .catch((error: Error) => stop.signal.aborted || setError(error.message));
    return () => stop.abort();
  }, []);
  // seven colours can be told apart; what is left is grey
  const names = useMemo(() => (map === null ? [] : map.categories.length > 7 ? [...map.categories.slice(0, 7), OTHERS] : map.categories), [map]);
  if (error !== null) return <Trouble sentence={error} />;
  if (map === null) return <Waiting what="Laying out the items…" />;
  const groupOf = (point: MapPoint) => (point.category !== null && names.includes(point.category) ? point.category : OTHERS);
  const colour = (name: string) => (name === OTHERS ? "grey" : colourOf(name, names));
  const shown = map.points.map((point, n) => ({ point, n })).filter(({ point }) => !off.has(groupOf(point)));
  const at = (value: number) => EDGE + ((SIDE - 2 * EDGE) * (value + 1)) / 2;
  const near = (x: number, y: number) => {
    // the square stands in the middle of whatever room there is
    const place = area.current?.getScreenCTM()?.inverse();
    if (!place) return -1;
    const pointed = new DOMPoint(x, y).matrixTransform(place);
    let best = -1;
    let least = (16 * place.a) ** 2;
    for (const { point, n } of shown) {
      const far = (at(point.x) - pointed.x) ** 2 + (at(-point.y) - pointed.y) ** 2;
      if (far < least) {
        least = far;
        best = n;
      }
    }
    return best;
  };
  const step = (by: number) => {
    const place = shown.findIndex(({ n }) => n === chosen);
    setChosen(shown[(place + by + shown.length) % Math.max(shown.length, 1)]?.n ?? -1);
  };
  const one = map.points[chosen];
  const turn = (name: string) => {
    const next = new Set(off);
    if (!next.delete(name)) next.add(name);
    setOff(next);
  };
  return (
    <div className="map-page">
      <Panel title="Items" note={`${number(map.points.length)} by ${map.what}, ${map.how}${map.category ? `, coloured by ${map.category}` : ""}`}>
        <svg
          ref={area}
          className="chart map-chart"
          viewBox={`0 0 ${SIDE} ${SIDE}`}
          role="application"
          tabIndex={0}
          aria-label="Map of items; the arrow keys go from item to item, Enter adds one to the history"
          onPointerMove={(event) => setChosen(near(event.clientX, event.clientY))}
          onClick={() => one && add(one.card)}
          onKeyDown={(event) => {
            const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
            if (by) {
              event.preventDefault();
              step(by);
            } else if (event.key === "Enter" && one) add(one.card);
          }}
        >
          {shown.map(({ point, n }) => (
            <circle key={point.item} className={`fill-${colour(groupOf(point))}`} cx={at(point.x)} cy={at(-point.y)} r={n === chosen ? 8 : 3.6} opacity={n === chosen ? 1 : 0.72} />
          ))}
        </svg>
      </Panel>
      <aside className="map-side" aria-live="polite">
        {one ? (
          <>
            <Picture card={one.card} size={240} />
            <h2>{one.title}</h2>
            <p className="hint">{[one.category, `${number(one.count)} events`].filter(Boolean).join(", ")}</p>
          </>
        ) : (
          <p className="hint">Point at an item to see it. A click adds it to the history of the slate.</p>
        )}
        <ul className="map-legend">
          {[...names, ...(names.includes(OTHERS) || map.points.every((point) => groupOf(point) !== OTHERS) ? [] : [OTHERS])].map((name) => (
            <li key={name}>
              <button type="button" aria-pressed={!off.has(name)} onClick={() => turn(name)}>
                <span className={`dot bg-${colour(name)}`} aria-hidden="true" />
                {name}
              </button>
            </li>
          ))}
        </ul>
      </aside>
    </div>
  );
}
