() => {
  // a link that says what to draw draws it
  const asked = new URLSearchParams(location.search);
  if (!asked.has("class") || !asked.has("seed")) return;
  setTimeout(() => {
    if (!document.querySelector("#told .aim-failed")) window.aim.draw();
  }, 300);
}
