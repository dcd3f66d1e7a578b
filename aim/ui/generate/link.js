(query) => {
  // the address of the page with the settings behind a question mark
  const link = location.origin + location.pathname + "?" + query;
  navigator.clipboard?.writeText(link).catch(() => {});
  return link;
}
