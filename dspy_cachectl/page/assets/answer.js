// One answer in full, in a dialog: what was asked, predicted and expected, what the LM was told and said, what it cost.

function answerDialog(page, share) {
  const title = el("h2", { id: "answer-title", tabindex: "-1" });
  const bar = el("div", { class: "bar", role: "group", "aria-label": "Answers to this question" });
  const content = el("div", { class: "content", tabindex: "0", role: "region", "aria-label": "The answer" });
  const dialog = el("dialog", { id: "answer", "aria-labelledby": title.id },
    el("header", {}, title, el("button", { type: "button", class: "close", click: () => dialog.close() },
      el("span", { "aria-hidden": "true" }, "✕"), el("span", { class: "unseen" }, "Close"))),
    bar, content);
  let [question, side, repeat] = [null, 0, 0];

  const text = (at) => page.texts[at];
  const block = (heading, ...children) => el("section", {}, el("h3", {}, heading), children);
  const fields = (named) => named.map(([name, at]) => el("div", { class: "field" }, el("h4", {}, name), el("pre", {}, text(at))));

  function call(one, at, all) {
    return el("details", { open: all.length === 1 },
      el("summary", {}, all.length === 1 ? "The call" : `Call ${at + 1} of ${all.length}`),
      el("div", { class: "prompt" }, fields(one.prompt)), el("div", { class: "said" }, fields(one.answer)));
  }

  function show() {
    const answer = question.answers[side][repeat];
    title.textContent = question.preview;
    bar.replaceChildren(...question.answers.flatMap((answers, at) => answers === null ? [] : [el("div", {},
      page.sides.length > 1 ? el("span", { class: "whose" }, page.sides[at]) : null,
      answers.map((_, number) => answerButton(page, share, question, at, number,
        { "aria-current": at === side && number === repeat ? "true" : null })))]));
    content.replaceChildren(...[
      el("p", { class: "which", role: "status" }, answerName(page, question, side, repeat)),
      answer.failed === null ? null : block("Why it failed", el("pre", { class: "bad" }, text(answer.failed))),
      answer.prediction.length ? block("Prediction", fields(answer.prediction)) : null,
      question.expected.length ? block("Expected", fields(question.expected)) : null,
      answer.feedback === null ? null : block("Feedback of the metric", el("pre", {}, text(answer.feedback))),
      question.inputs.length ? block("Question", fields(question.inputs)) : null,
      block("Calls of the LM", answer.calls.length ? answer.calls.map(call)
        : el("p", { class: "muted" }, "What the LM was told and said is not at hand: no call was seen, or the store has no entry of it that can be read.")),
      answer.troubles.length ? block("What went wrong on the way", definitions(answer.troubles)) : null,
      block("Made of", definitions(answer.facts)),
    ].filter(Boolean));
    content.scrollTop = 0;
  }

  function step(by) {
    const all = [...bar.querySelectorAll("button")];
    const next = all[all.findIndex((button) => button.hasAttribute("aria-current")) + by];
    if (next) go(next);
  }

  function go(button) {
    [side, repeat] = [Number(button.dataset.side), Number(button.dataset.repeat)];
    show();
    bar.querySelector("[aria-current]").focus();
  }

  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button.answer");
    if (button) go(button);
  });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.closest("pre")) return;
    event.preventDefault();
    step(by);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // When it closes, the browser gives the focus back to what had it.
  function open(at, whose, which) {
    [question, side, repeat] = [page.questions[at], whose, which];
    show();
    dialog.showModal();
    title.focus();
  }
  return { dialog, open };
}
