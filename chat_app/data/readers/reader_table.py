"""The table of readers. Importing it imports every reader, so it is imported when the first file is read."""

from __future__ import annotations

from chat_app.data.readers.bots.aiml import AimlReader
from chat_app.data.readers.bots.bot_framework import BotFrameworkReader
from chat_app.data.readers.bots.chatterbot import ChatterBotReader
from chat_app.data.readers.bots.dialogflow import DialogflowReader
from chat_app.data.readers.bots.intents import IntentsReader
from chat_app.data.readers.bots.rasa import RasaReader
from chat_app.data.readers.chat_exports.chatgpt import ChatGPTReader
from chat_app.data.readers.chat_exports.claude import ClaudeReader
from chat_app.data.readers.chat_exports.discord import DiscordReader
from chat_app.data.readers.chat_exports.google_chat import GoogleChatReader
from chat_app.data.readers.chat_exports.imessage import IMessageReader
from chat_app.data.readers.chat_exports.irc import IrcReader
from chat_app.data.readers.chat_exports.kakaotalk import KakaoTalkReader
from chat_app.data.readers.chat_exports.line import LineReader
from chat_app.data.readers.chat_exports.meeting import MeetingReader
from chat_app.data.readers.chat_exports.messenger import MessengerReader
from chat_app.data.readers.chat_exports.named_lines import NamedLinesReader
from chat_app.data.readers.chat_exports.oobabooga import OobaboogaReader
from chat_app.data.readers.chat_exports.signal import SignalReader
from chat_app.data.readers.chat_exports.sillytavern import SillyTavernReader
from chat_app.data.readers.chat_exports.skype import SkypeReader
from chat_app.data.readers.chat_exports.slack import SlackDayReader, SlackExportReader
from chat_app.data.readers.chat_exports.sms import SmsReader
from chat_app.data.readers.chat_exports.telegram import TelegramReader
from chat_app.data.readers.chat_exports.whatsapp import WhatsAppReader
from chat_app.data.readers.corpora.cornell import CornellReader
from chat_app.data.readers.corpora.dailydialog import DailyDialogReader
from chat_app.data.readers.corpora.dialogpt import DialoGPTReader
from chat_app.data.readers.corpora.empathetic_dialogues import EmpatheticDialoguesReader
from chat_app.data.readers.corpora.eos_lines import EosLinesReader
from chat_app.data.readers.corpora.multiwoz import MultiWozReader
from chat_app.data.readers.corpora.oasst import OasstReader
from chat_app.data.readers.corpora.parlai import ParlAIReader
from chat_app.data.readers.corpora.squad import SquadReader
from chat_app.data.readers.json.document import DocumentReader
from chat_app.data.readers.json.jsonl import JsonlReader
from chat_app.data.readers.protocol import Reader
from chat_app.data.readers.tables.csv import CsvReader
from chat_app.data.readers.tables.parquet import ParquetReader
from chat_app.data.readers.tables.tsv import TsvReader
from chat_app.data.readers.tables.xlsx import XlsxReader
from chat_app.data.readers.text.subtitles import SubtitlesReader
from chat_app.data.readers.text.transcript import TranscriptReader
from chat_app.data.readers.unread import UnreadReader

# In the order of detection. The last reader accepts every text that the others reject.
READERS: tuple[type[Reader], ...] = (
    ParquetReader,
    XlsxReader,
    UnreadReader,
    AimlReader,
    SmsReader,
    RasaReader,
    ChatterBotReader,
    DialogflowReader,
    CornellReader,
    MessengerReader,
    ChatGPTReader,
    ClaudeReader,
    GoogleChatReader,
    SkypeReader,
    SignalReader,
    SillyTavernReader,
    OobaboogaReader,
    IntentsReader,
    OasstReader,
    MultiWozReader,
    SquadReader,
    DiscordReader,
    TelegramReader,
    SlackDayReader,
    DocumentReader,
    JsonlReader,
    SubtitlesReader,
    BotFrameworkReader,
    ParlAIReader,
    LineReader,
    KakaoTalkReader,
    IMessageReader,
    WhatsAppReader,
    IrcReader,
    MeetingReader,
    EosLinesReader,
    NamedLinesReader,
    DialoGPTReader,
    DailyDialogReader,
    EmpatheticDialoguesReader,
    CsvReader,
    TranscriptReader,
    TsvReader,
)
# Readers of a whole folder or archive. They are asked before the files in it are read one by one.
FOLDER_READERS: tuple[type[Reader], ...] = (SlackExportReader,)
