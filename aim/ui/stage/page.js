() => {
  // Enter draws and Esc stops, on the tab that is shown; in a list or on a button Enter means what
  // it always does.
  const press = (...ids) => {
    const buttons = ids.map((id) => document.getElementById(id));
    buttons.find((button) => button?.offsetParent && !button.disabled)?.click();
  };
  const own =
    "button, a, textarea, select, input[type=radio], [role=listbox], [role=combobox], " +
    "[aria-haspopup]";
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      press("stop", "inside-stop", "explore-stop", "compare-stop", "race-stop", "scaling-stop");
    }
    if (event.key === "Enter" && !event.isComposing && !event.target.closest(own)) {
      // after the number that Enter ends is taken
      setTimeout(() => press("generate", "inside", "explore", "sweep", "blend"), 60);
    }
  });

  // Gradio labels what is empty, and gives it no role that may have a label.
  const name = () =>
    document
      .querySelectorAll(".empty[aria-label]:not([role])")
      .forEach((empty) => empty.setAttribute("role", "img"));
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();

  // A click into the class selects its text, so that typing searches at once instead of being added
  // to the name that is there.
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches("#class input")) setTimeout(() => target.select());
  });
}
