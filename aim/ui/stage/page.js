() => {
  const open = "[role=combobox][aria-expanded=true]";
  const own =
    "button, a, textarea:not([rows='1']), select, input[type=radio], [role=listbox], " +
    "[role=combobox], [aria-haspopup], #inside-row, #inside-column";
  const DRAW = ["generate", "inside", "explore", "sweep", "blend", "race"];
  const STOP = ["generate", "inside", "explore", "compare", "race", "scaling"].map(
    (tab) => tab + "-stop",
  );
  const seen = (ids) => {
    const buttons = ids.map((id) => document.getElementById(id));
    return buttons.find((button) => button?.offsetParent && !button.disabled);
  };
  const press = (...ids) => seen(ids)?.click();

  // A list that is left, by Tab or by a click elsewhere, takes what was typed.
  const leave = (list) => {
    const option = document.getElementById(list.getAttribute("aria-activedescendant"));
    option?.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
    list.blur();
    // Gradio opens its own again at any key
    setTimeout(() => list.ariaExpanded === "true" && list.dispatchEvent(new FocusEvent("blur")));
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
  // it always does, and in a picker that is closed there is nothing to take.
  const drawn = (target) => !target.closest(own) || (!inList && target.closest(".aim-picker"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !inList && !document.querySelector("dialog[open]")) {
      document.dispatchEvent(new Event("aim-stop"));
      press(...STOP);
    }
    if (event.key === "Enter" && !event.isComposing && drawn(event.target)) {
      // after the number that Enter ends is taken
      setTimeout(() => press(...DRAW), 60);
    }
  });

  // The number of a slider that was emptied is what it was before, and not the least one.
  let number = "";
  const slider = ({ target }) => target.matches?.("input[aria-label^='number input for']");
  const refill = (event) => {
    const { target } = event;
    if (!slider(event) || target.value !== "" || (event.key ?? "Enter") !== "Enter") return;
    target.value = number;
    target.dispatchEvent(new Event("input", { bubbles: true }));
  };
  document.addEventListener("focusin", (event) => {
    if (slider(event)) number = event.target.value;
  });
  document.addEventListener("blur", refill, true);
  document.addEventListener("keydown", refill, true);

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

  document.addEventListener("click", ({ target }) => {
    if (STOP.includes(target.closest("button")?.id)) document.dispatchEvent(new Event("aim-stop"));
  });

  // The tab that is shown is in the address, so that Back leads to the one before.
  const row = ".aim-page > .tabs > .tab-wrapper ";
  const tabs = () => [...document.querySelectorAll(`${row} [role=tab]`)];
  const called = (tab) => tab.textContent.trim().toLowerCase();
  const show = (name) => tabs().find((tab) => called(tab) === name)?.click();
  const here = () => location.hash.slice(1) || "generate";
  document.addEventListener("click", (event) => {
    const tab = event.target.closest("button");
    const link = event.target.closest('a[href^="#"]'); // to a tab
    if (link?.matches(".aim-skip")) {
      event.preventDefault();
      tabs().find((tab) => tab.ariaSelected === "true")?.focus();
    }
    if (link && tabs().some((tab) => "#" + called(tab) === link.hash)) {
      event.preventDefault();
      show(link.hash.slice(1));
    }
    if (!tab || !tabs().includes(tab) || called(tab) === here()) return;
    // the page has a base, so that a hash alone would lose the query
    const name = called(tab) === "generate" ? "" : "#" + called(tab);
    history.pushState(null, "", location.pathname + location.search + name);
  });
  addEventListener("popstate", () => show(here()));
  // Arrows go from tab to tab.
  document.addEventListener("keydown", ({ key, target }) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
    const all = [...(target.closest?.("[role=tablist]")?.querySelectorAll("[role=tab]") || [])];
    const next = by && all[(all.indexOf(target) + by + all.length) % all.length];
    next?.click();
    next?.focus();
  });
  if (location.hash) show(here());

  // Pictures, as the browser keeps them, as a file of one kind; rejects in words.
  const made = async (kind, pictures) => {
    const told = pictures.map(({ parameters, codes }) => ({ parameters, codes }));
    const address = `${window.gradio_config?.root || ""}/drawings/${kind}`;
    const answer = await fetch(address, { method: "POST", body: JSON.stringify(told) });
    if (!answer.ok) throw new Error((await answer.text()).slice(0, 300));
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") || "");
    return { data: await answer.blob(), name: named ? named[1] : "aim." + kind };
  };
  // The same, saved by a button that says the kind; `say` is where words go.
  const save = async (button, pictures, say) => {
    say.textContent = `Making the ${button.textContent} …`;
    button.disabled = true;
    try {
      const { data, name } = await made(button.dataset.kind, pictures);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(data);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      say.textContent = "";
    } catch (error) {
      const unreachable = error instanceof TypeError;
      say.textContent = unreachable ? "The server cannot be reached." : error.message;
    }
    button.disabled = false;
  };
  const copy = (query, say) => {
    const link = `${location.origin}${location.pathname}?${query}`;
    const shown = () => (say.textContent = link);
    const copied = () => (say.textContent = "The link is copied.");
    navigator.clipboard ? navigator.clipboard.writeText(link).then(copied, shown) : shown();
  };
  // Show the tab that somebody goes on to with a picture, whose settings are taken over.
  const arrive = () => {
    if (document.querySelector("#told .aim-failed")) return;
    show(window.aim.to);
    setTimeout(() => seen(DRAW)?.focus(), 100); // what was pressed is no longer there
  };
  // draw: what the settings say, on the tab that is shown
  window.aim = { show, draw: () => press(...DRAW), made, save, copy, arrive };
  document.dispatchEvent(new Event("aim-ready"));
}
