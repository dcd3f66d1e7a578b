(names) => {
  const link = document.createElement("a");
  link.href = `${window.gradio_config?.root || ""}/drawings.zip?names=${names}`;
  link.download = "aim-pictures.zip";
  link.click();
}
