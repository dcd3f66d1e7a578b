element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-number]");
  if (button) trigger("click", { number: Number(button.dataset.number) });
});
