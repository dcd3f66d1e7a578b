() => {
  const open = "[role=combobox][aria-expanded=true]";
  const own =
    "button, a, textarea, select, input[type=radio], [role=listbox], [role=combobox], " +
    "[aria-haspopup], #inside-row, #inside-column";
  const press = (...ids) => {
    const buttons = ids.map((id) => document.getElementById(id));
    buttons.find((button) => button?.offsetParent && !button.disabled)?.click();
  };

  // A list that is left, by Tab or by a click elsewhere, takes what was typed.
  const leave = (list) => {
    const option = document.getElementById(list.getAttribute("aria-activedescendant"));
    option?.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
    list.blur();
  };
  let inList = false; // whether the key that is pressed belongs to a list
  const before = (event) => {
    const list = event.target.closest?.(open);
    inList = Boolean(list);
    if (list && event.key === "Tab") leave(list);
  };
  document.addEventListener("keydown", before, true);
  document.addEventListener(
    "pointerdown",
    (event) => {
      const list = document.activeElement?.closest(open);
      if (list && event.target !== list && !event.target.closest("[role=listbox], [role=option]")) {
        leave(list);
      }
    },
    true,
  );

  // Enter draws and Esc stops, on the tab that is shown; in a list or on a button Enter means what
  // it always does.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !inList) {
      press("stop", "inside-stop", "explore-stop", "compare-stop", "race-stop", "scaling-stop");
    }
    if (event.key === "Enter" && !event.isComposing && !event.target.closest(own)) {
      // after the number that Enter ends is taken
      setTimeout(() => press("generate", "inside", "explore", "sweep", "blend"), 60);
    }
  });

  // A link to a tab opens it, also where the tab is in the menu of those that do not fit.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const tabs = [...document.querySelectorAll("[role=tab], .overflow-dropdown button")];
    const tab = tabs.find((one) => link?.hash === "#" + one.textContent.trim().toLowerCase());
    if (!tab) return;
    event.preventDefault();
    tab.click();
  });

  // Gradio labels what is empty, and gives it no role that may have a label.
  const name = () =>
    document
      .querySelectorAll(".empty[aria-label]:not([role])")
      .forEach((empty) => empty.setAttribute("role", "img"));
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();

  // A click into a list selects its text, so that typing searches at once instead of being added to
  // the name that is there.
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches("input[role=combobox]:not([readonly])")) setTimeout(() => target.select());
  });
}
