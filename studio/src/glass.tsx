// The stained glass of the header: panes of the house's colours between leads. Decoration only.
const PANES = ["blue", "sky", "teal", "ochre", "orange", "rose", "violet"];

export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 36" aria-hidden="true">
      <path className="pane blue" d="M3 15C4 8 9 3 15.2 2v13z" />
      <path className="pane orange" d="M16.8 2C23 3 28 8 29 15l-12.200 .8z" />
      <path className="pane teal" d="M3 16.600h12.200V34H3z" />
      <path className="pane violet" d="m16.800 17.400 12.200-.8V25l-12.200 3z" />
      <path className="pane ochre" d="m16.800 29.700 12.200-3V34H16.800z" />
    </svg>
  );
}

/** A strip of panes, the same on every page load. */
export function Strip() {
  const panes = [];
  let x = 0;
  for (let n = 0; x < 1600; n += 1) {
    const width = 26 + ((n * 37) % 61);
    const lean = ((n * 53) % 19) - 9;
    const next = ((n * 53 + 53) % 19) - 9;
    panes.push(<path key={n} className={`pane ${PANES[(n * 3 + (n % 2)) % PANES.length]}`} d={`M${x + lean} 0H${x + width + next - 2}L${x + width - 2} 10H${x}z`} />);
    x += width;
  }
  return (
    <svg className="strip" viewBox="0 0 1600 10" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      {panes}
    </svg>
  );
}
