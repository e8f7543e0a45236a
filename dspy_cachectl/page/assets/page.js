// The whole page, from its content.

function blockOf({ title, header, rows, kind, is_aside }, at) {
  const inner = kind === "notes" ? el("ul", {}, rows.map((row) => el("li", {}, row.at(-1)[0])))
    : kind === "facts" ? definitions(rows.map(([label, said]) => [label[0], said[1] === "plain" ? said[0] : badge(said)]))
      : table(title, header, rows.map((row) => row.map((said) => (said[1] === "plain" ? said[0] : badge(said)))));
  if (is_aside) return el("details", { class: "aside" }, el("summary", {}, el("h2", {}, title)), inner);
  const made = section(title, `block-${at}`, inner);
  made.classList.add(kind);
  return made;
}

function differenceSection(page) {
  const words = { first: "del", second: "ins", cut: "small", both: "span" };
  const shown = page.differences.map(({ what, words: spans }) => el("div", { class: "field" }, el("h3", {}, what),
    el("pre", {}, spans.map(([text, of]) => of === "cut" ? el("small", {}, ` … ${text} … `)
      : el(words[of], {}, of === "first" || of === "second" ? el("span", { class: "unseen" }, of === "first" ? "[only the first: " : "[only the second: ") : null,
        text, of === "first" || of === "second" ? el("span", { class: "unseen" }, "]") : null)))));
  const legend = page.differences.length
    ? el("p", { class: "muted" }, el("del", {}, `only ${page.sides[0]}`), " ", el("ins", {}, `only ${page.sides[1]}`)) : null;
  return section("What differs between the programs", "programs", el("p", {}, page.programs), legend, shown);
}

function mishapSection(page, choose) {
  const several = page.sides.length > 1;
  const rows = page.mishaps.map((mishap) => [
    ...(several ? [page.sides[mishap.side]] : []), mishap.predictor, mishap.said, mishap.questions.toLocaleString("en"),
    el("button", { type: "button", click: () => choose(mishapFilter(mishap)) }, "Show them",
      el("span", { class: "unseen" }, ` of ${mishap.predictor}`))]);
  return section("What went wrong, by predictor", "mishaps", rows.length
    ? table("What went wrong, by predictor", [...(several ? ["report"] : []), "predictor", "what", "questions", "where"], rows, [several ? 3 : 2])
    : el("p", {}, "Nothing that was counted."));
}

function scoreSection(page) {
  return section("Scores", "scores", picture("Scores with their intervals", page.scores, page.scale),
    page.difference ? picture("The difference with its interval", [page.difference], page.scale, true) : null,
    page.prices.length ? priced("Score against what an answer cost", page.scores, page.prices, page.price_unit, page.scale) : null,
    scoreTable(page.difference ? [...page.scores, page.difference] : page.scores));
}

async function main() {
  const root = document.getElementById("page");
  const page = await unpacked();
  const answers = page.questions.flatMap((question) => question.answers.flatMap((side) => side ?? []));
  const [least, most] = page.scale;
  page.isBinary = answers.every(({ score }) => score === least || score === most);
  const rows = facts(page);
  const { dialog, open } = answerDialog(page, rows[0].share);
  const questions = questionsSection(page, open);
  const blocks = page.blocks.map(blockOf);
  const is = (kind) => (_, at) => (page.blocks[at].is_aside ? "aside" : page.blocks[at].kind) === kind;
  root.replaceChildren(
    el("header", {}, el("h1", {}, page.title), el("p", { class: "headline" }, badge(page.headline))),
    ...blocks.filter(is("notes")), scoreSection(page), questions.section,
    ...(page.differences ? [differenceSection(page)] : []), mishapSection(page, questions.choose),
    ...blocks.filter(is("facts")), ...blocks.filter(is("table")), ...blocks.filter(is("aside")),
    el("footer", {}, page.foot));
  document.body.append(dialog);
  root.removeAttribute("aria-busy");
}

main().catch((error) => {
  document.getElementById("page").replaceChildren(el("p", { class: "wait", role: "alert" },
    `This report cannot be shown: ${error.message}. It needs a browser of 2023 or newer.`));
  throw error;
});
