element.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-index]");
  if (chip) trigger("click", { index: Number(chip.dataset.index) });
});
