/** All words of the page, in one file. A translation is another object of this type. */
export const texts = {
  common: {
    close: "Close",
    cancel: "Cancel",
    copy: "Copy",
    copied: "Copied.",
    save: "Save",
    remove: "Remove",
    loading: "Loading …",
    retry: "Try again",
    details: "Details",
    all: "All",
    none: "None",
    unknown: "unknown",
  },
  errors: {
    unreachable: "The server does not answer.",
    failed: "This part of the page failed: ",
  },
  shell: {
    title: "Modelyard",
    skip: "Skip to the contents",
    navigation: "Pages",
    pages: { models: "Models", chat: "Chat", activity: "Activity", settings: "Settings" },
    search: "Search or run",
    connection: {
      connecting: "Connecting …",
      online: "Connected",
      lost: "No connection",
      refused: "Key needed",
    },
    lost: "The server does not answer. The page shows what it knew last, and connects again by itself.",
    refused: "The server needs a key.",
    enterKey: "Enter a key",
    recovered: "The server is back.",
    noRead: "This key may not see models. It needs the scope “read”.",
  },
  models: {
    title: "Models",
  },
  activity: {
    title: "Activity",
  },
  settings: {
    title: "Settings",
  },
  chat: {
    title: "Chat",
  },
};

export type Texts = typeof texts;
