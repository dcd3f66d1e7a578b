(query) => {
  // the address of the tab that is shown, with the settings behind a question mark
  const { origin, pathname, hash } = window.location;
  const link = `${origin}${pathname}?${query}${hash}`;
  navigator.clipboard?.writeText(link).catch(() => {});
  return link;
}
