// The questions by their repeats: a table of answers to filter, to sort, and to walk through with the arrow keys.

const [AT_FIRST, AT_ONCE] = [50, 200];

function facts(page) {
  const [least, most] = page.scale;
  const share = (score) => (most > least ? (score - least) / (most - least) : 1);
  return page.questions.map((question, index) => {
    const answers = question.answers.flatMap((side) => side ?? []);
    const total = (name) => answers.reduce((sum, answer) => sum + answer[name], 0);
    const spread = question.answers.map((side) => {
      const scores = (side ?? []).map((answer) => answer.score);
      return scores.length ? Math.max(...scores) - Math.min(...scores) : 0;
    });
    return {
      index, question, answers, share,
      score: question.means.at(-1) ?? question.means[0] ?? 0,
      spread: Math.max(...spread), cost: total("cost"), seconds: total("seconds"),
      failed: answers.some((answer) => answer.failed !== null),
      short: answers.some((answer) => share(answer.score) < 1),
    };
  });
}

function filters(page) {
  const found = [
    ["all", "All questions", () => true],
    ["short", "Any answer below the best score", (row) => row.short],
    ["failed", "Any answer failed", (row) => row.failed],
    ["spread", "Repeats disagree", (row) => row.spread > 0],
  ];
  if (page.sides.length > 1) {
    found.splice(1, 0,
      ["changed", "Changed sides: won or lost", (row) => Boolean(row.question.change)],
      ["lost", "Lost", (row) => row.question.change < 0],
      ["won", "Won", (row) => row.question.change > 0],
      ["single", "Only one has it", (row) => row.question.answers.some((side) => side === null)]);
  }
  for (const name of new Set(page.questions.flatMap((question) => question.slices))) {
    found.push([`slice ${name}`, `Slice ${name}`, (row) => row.question.slices.includes(name)]);
  }
  for (const mishap of page.mishaps) {
    const name = mishapFilter(mishap);
    if (found.some(([other]) => other === name)) continue;
    found.push([name, `Trouble in ${mishap.predictor}`,
      (row) => row.answers.some((answer) => answer.troubles.some(([predictor]) => predictor === mishap.predictor))]);
  }
  return found;
}

const mishapFilter = (mishap) => `trouble ${mishap.predictor}`;

function sorts(page) {
  const by = (key) => (one, other) => key(one) - key(other) || one.index - other.index;
  const { compare } = new Intl.Collator(undefined, { numeric: true }); // "Q2" stands before "Q10"
  const found = [
    ["order", "Order of the data", by((row) => row.index)],
    ["question", "Question, A to Z", (one, other) => compare(one.question.preview, other.question.preview) || one.index - other.index],
    ["low", "Lowest score first", by((row) => row.score)],
    ["high", "Highest score first", by((row) => -row.score)],
    ["spread", "Repeats that disagree most", by((row) => -row.spread)],
    ["cost", "Most expensive first", by((row) => -row.cost)],
    ["seconds", "Slowest first", by((row) => -row.seconds)],
  ];
  if (page.sides.length > 1) {
    found.push(["before-low", `Lowest score of ${page.sides[0]} first`, by((row) => row.question.means[0] ?? 0)],
      ["before-high", `Highest score of ${page.sides[0]} first`, by((row) => -(row.question.means[0] ?? 0))],
      ["loss", "Biggest loss first", by((row) => row.question.change ?? 0)],
      ["gain", "Biggest gain first", by((row) => -(row.question.change ?? 0))]);
  }
  return found;
}

function gradeOf(share) {
  return `grade${Math.min(4, Math.max(0, Math.floor(share * 5)))}`;
}

function answerName(page, question, side, repeat) {
  const answer = question.answers[side][repeat];
  const whose = page.sides.length > 1 ? `${page.sides[side]}, ` : "";
  return `${whose}repeat ${repeat + 1}: ${answer.failed === null ? "" : "failed, "}score ${number(answer.score)}`;
}

function answerButton(page, share, question, side, repeat, attributes) {
  const answer = question.answers[side][repeat];
  const passes = page.isBinary ? (share(answer.score) >= 1 ? "✓" : "✗") : number(answer.score, 2);
  return el("button", {
    type: "button", class: `answer ${gradeOf(share(answer.score))}${answer.failed === null ? "" : " failed"}`,
    "data-question": question.at, "data-side": side, "data-repeat": repeat, ...attributes,
  }, el("span", { "aria-hidden": "true" }, answer.failed === null ? passes : "!"),
  el("span", { class: "unseen" }, answerName(page, question, side, repeat)));
}

function choice(id, label, options) {
  return el("label", { for: id }, el("span", {}, label),
    el("select", { id }, options.map(([value, text]) => el("option", { value }, text))));
}

function questionsSection(page, open) {
  page.questions.forEach((question, at) => { question.at = at; });
  const rows = facts(page);
  const [kept, ordered] = [filters(page), sorts(page)];
  const lower = page.texts.map((text) => text.toLowerCase());
  const search = el("input", { id: "search", type: "search", autocomplete: "off", spellcheck: "false" });
  const filter = choice("filter", "Show", kept);
  const sort = choice("sort", "Sorted by", ordered);
  const count = el("p", { id: "count", role: "status" });
  const several = page.sides.length > 1;
  const body = el("tbody", { role: "rowgroup" });
  const more = el("button", { type: "button", class: "more", click: () => show(found.slice(body.rows.length, body.rows.length + AT_ONCE)) });
  let found = [];

  function matches(text) {
    if (!text) return () => true;
    const within = lower.map((one) => one.includes(text));
    const holds = (named) => named.some(([, at]) => within[at]);
    return ({ question, answers }) =>
      question.preview.toLowerCase().includes(text) || holds(question.inputs) || holds(question.expected) ||
      answers.some((answer) => holds(answer.prediction) || within[answer.failed] || within[answer.feedback] ||
        answer.calls.some((call) => holds(call.answer) || holds(call.prompt)));
  }

  function answersOf(question, share, at) {
    const all = question.answers[at].map((_, repeat) => answerButton(page, share, question, at, repeat, { tabindex: "-1" }));
    const cell = el("div", {}, all);
    cell.style.setProperty("--columns", Math.min(all.length, 10));
    return cell;
  }

  // The roles are said, since on a narrow screen the cells are laid out as no table.
  function rowOf({ question, share }) {
    const side = (answers, at) => [
      el("td", { role: "cell", class: "number mean", "data-side": several ? page.sides[at] : null }, number(question.means[at])),
      el("td", { role: "cell", class: "answers" }, answers === null ? el("span", { class: "muted" }, "not asked") : answersOf(question, share, at)),
    ];
    const change = question.change;
    const verdict = change === null ? "–" : change > 0 ? "won" : change < 0 ? "lost" : "tied";
    return el("tr", { role: "row" },
      el("th", { role: "rowheader", scope: "row" }, question.preview),
      question.answers.map(side),
      several ? el("td", { role: "cell", class: `number change ${verdict}` }, verdict, change ? ` ${signed(change)}` : "") : null);
  }

  function show(some) {
    body.append(...some.map(rowOf));
    const left = found.length - body.rows.length;
    more.hidden = left <= 0;
    more.textContent = `Show ${Math.min(left, AT_ONCE)} more of ${left.toLocaleString("en")}`;
    if (!body.querySelector("button[tabindex='0']")) body.querySelector("button")?.setAttribute("tabindex", "0");
  }

  function update() {
    const keeps = kept.find(([name]) => name === filter.lastChild.value)[2];
    const holds = matches(search.value.trim().toLowerCase());
    const [, , order] = ordered.find(([name]) => name === sort.lastChild.value);
    found = rows.filter((row) => keeps(row) && holds(row)).sort(order);
    count.textContent = found.length === rows.length ? plural(rows.length, "question")
      : `${found.length.toLocaleString("en")} of ${plural(rows.length, "question")}`;
    body.replaceChildren();
    show(found.slice(0, AT_FIRST));
    empty.hidden = found.length > 0;
    grid.hidden = found.length === 0;
    for (const [heading, up, down] of sortable) {
      const by = sort.lastChild.value;
      heading.setAttribute("aria-sort", by === up ? "ascending" : by === down && down !== "order" ? "descending" : "none");
    }
  }

  function choose(name) {
    search.value = "";
    filter.lastChild.value = name;
    update();
    document.getElementById("questions").scrollIntoView();
    filter.lastChild.focus({ preventScroll: true });
  }

  const sortable = [];
  function heading(text, up, down, attributes = {}) {
    const made = el("th", { role: "columnheader", scope: "col", ...attributes }, el("button", {
      type: "button", class: "sort", click: () => { sort.lastChild.value = sort.lastChild.value === up ? down : up; update(); },
    }, el("span", { class: "name" }, text), el("span", { class: "way", "aria-hidden": "true" })));
    sortable.push([made, up, down]);
    return made;
  }

  const head = el("tr", { role: "row" }, heading("question", "question", "order"),
    page.sides.map((name, at) => [
      several && at === 0 ? heading(name, "before-low", "before-high", { class: "number" })
        : heading(several ? name : "score", "low", "high", { class: "number" }),
      el("th", { role: "columnheader", scope: "col" }, several ? el("span", { class: "unseen" }, `answers of ${name}`) : "answers, one a repeat")]),
    several ? heading("change", "loss", "gain", { class: "number" }) : null);
  const grid = el("div", { class: "wide questions" }, el("table", { id: "grid", role: "table" },
    el("caption", { class: "unseen" }, "Questions and their answers. The arrow keys move from answer to answer."),
    el("thead", { role: "rowgroup" }, head), body));
  const empty = el("p", { class: "muted", hidden: true }, "No question is like that.");

  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.answer");
    if (button) open(Number(button.dataset.question), Number(button.dataset.side), Number(button.dataset.repeat));
  });
  body.addEventListener("focusin", (event) => {
    for (const other of body.querySelectorAll("button[tabindex='0']")) other.setAttribute("tabindex", "-1");
    event.target.setAttribute("tabindex", "0");
  });
  body.addEventListener("keydown", (event) => {
    const next = neighbour(body, event);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  for (const control of [filter, sort]) control.addEventListener("change", update);
  search.addEventListener("input", update);

  const made = section("Questions", "questions",
    el("form", { class: "tools", submit: (event) => event.preventDefault() },
      el("label", { for: "search" }, el("span", {}, "Containing"), search), filter, sort), count,
    el("p", { class: "muted hint" }, `Each ${page.isBinary ? "mark" : "number"} is an answer: ${page.isBinary ? "✓ the best score, ✗ the lowest" : "its score"}, or ! one that failed. `,
      "Open one to read it. The arrow keys move between them, Enter opens, Escape closes."),
    grid, empty, more);
  if (several && rows.some((row) => row.question.change)) filter.lastChild.value = "changed";
  update();
  return { section: made, choose };
}

function neighbour(body, event) {
  const row = event.target.closest("tr");
  const within = [...row.querySelectorAll("button")];
  const at = within.indexOf(event.target);
  const vertical = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10 }[event.key];
  if (vertical !== undefined) {
    const other = body.rows[Math.min(Math.max(row.sectionRowIndex + vertical, 0), body.rows.length - 1)];
    const buttons = other.querySelectorAll("button");
    return buttons[Math.min(at, buttons.length - 1)];
  }
  if (event.key === "Home") return event.ctrlKey ? body.querySelector("button") : within[0];
  if (event.key === "End") return event.ctrlKey ? [...body.querySelectorAll("button")].at(-1) : within.at(-1);
  return within[at + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? NaN)];
}
