// Scores with their intervals, one below the other on one axis.

const ROW = 34;

function steps(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

function domain(rows, [least, most], zero) {
  const ends = rows.flatMap((row) => [row.low ?? row.score, row.high ?? row.score, row.score]);
  if (zero) ends.push(0);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  // Several that are near to each other would lie upon each other on the whole scale.
  if (!zero && (rows.length === 1 || high - low > (most - least) / 4)) return [Math.min(least, low), Math.max(most, high)];
  const room = (high - low || Math.abs(high) || 1) * 0.15;
  [low, high] = [low - room, high + room];
  return zero ? [low, high] : [Math.max(low, Math.min(least, ...ends)), Math.min(high, Math.max(most, ...ends))];
}

function picture(title, rows, scale, zero = false) {
  const [low, high] = domain(rows, scale, zero);
  const at = (value) => `${(3 + 94 * Math.min(Math.max((value - low) / (high - low || 1), 0), 1)).toFixed(3)}%`;
  const said = rows.map((row) => `${row.name}: ${row.text}, interval ${row.ends}`).join("; ");
  const height = rows.length * ROW + 26;
  const ticks = steps(low, high).map((tick) => [
    svg("line", { class: zero && Math.abs(tick) < 1e-12 ? "zero" : "tick", x1: at(tick), x2: at(tick), y1: 2, y2: height - 20 }),
    svg("text", { x: at(tick), y: height - 5, "text-anchor": "middle" }, number(tick)),
  ]);
  const marks = rows.map((row, index) => {
    const y = index * ROW + 18;
    const [from, to] = [row.low ?? low, row.high ?? high];
    return svg("g", { class: zero ? "mark" : `mark side${Math.min(index, 1)}` },
      svg("line", { class: "whisker", x1: at(from), x2: at(to), y1: y, y2: y }),
      [row.low, row.high].filter((end) => end !== null).map((end) =>
        svg("line", { class: "whisker", x1: at(end), x2: at(end), y1: y - 6, y2: y + 6 })),
      svg("circle", { cx: at(row.score), cy: y, r: 6 }));
  });
  return el("figure", { class: "picture" },
    el("div", { class: "names", "aria-hidden": "true" }, rows.map((row) => el("div", {},
      el("strong", {}, row.name), " ", el("span", {}, row.text)))),
    svg("svg", { role: "img", "aria-label": `${title}. ${said}`, height, width: "100%" }, ticks, marks));
}

// Score against what an answer cost: a cross for each side.
function priced(title, scores, prices, unit, scale) {
  const [low, high] = domain(scores, scale, false);
  const dearest = Math.max(...prices.map((one) => one.high ?? one.score)) * 1.1 || 1;
  const height = 220;
  const x = (value) => `${(8 + 89 * Math.min(Math.max(value / dearest, 0), 1)).toFixed(3)}%`;
  const y = (value) => (height - 30 - (height - 44) * Math.min(Math.max((value - low) / (high - low || 1), 0), 1)).toFixed(1);
  const ticks = [
    steps(0, dearest).map((tick) => svg("text", { x: x(tick), y: height - 5, "text-anchor": "middle" }, number(tick))),
    steps(low, high).map((tick) => [
      svg("line", { class: "tick", x1: "8%", x2: "100%", y1: y(tick), y2: y(tick) }),
      svg("text", { x: "7%", y: Number(y(tick)) + 4, "text-anchor": "end" }, number(tick))]),
  ];
  const marks = scores.map((score, at) => svg("g", { class: `mark side${at}` },
    svg("line", { class: "whisker", x1: x(prices[at].score), x2: x(prices[at].score), y1: y(score.low ?? low), y2: y(score.high ?? high) }),
    svg("line", { class: "whisker", x1: x(prices[at].low ?? 0), x2: x(prices[at].high ?? dearest), y1: y(score.score), y2: y(score.score) }),
    svg("circle", { cx: x(prices[at].score), cy: y(score.score), r: 6 })));
  const said = scores.map((score, at) => `${score.name}: ${score.text} at ${prices[at].text} ${unit}`).join("; ");
  return el("figure", { class: "picture" },
    el("div", { class: "names" }, scores.map((score, at) => el("div", {}, el("strong", {}, score.name), " ",
      el("span", {}, `${prices[at].text} ${unit} an answer`)))),
    svg("svg", { role: "img", "aria-label": `${title}. ${said}`, height, width: "100%" }, ticks, marks));
}

function scoreTable(rows) {
  return table("Scores", ["name", "n", "score", "low", "high"],
    rows.map((row) => [row.name, row.n.toLocaleString("en"), number(row.score, 4), number(row.low, 4), number(row.high, 4)]),
    [1, 2, 3, 4]);
}
