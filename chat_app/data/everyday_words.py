"""Everyday words of questions to a shop, an office or a club, in groups of about the same meaning.

A person who asks "how much is it" and a list that was written with "price" share no word. The groups are general
English, written from what customers ask anywhere, and no group was made for one set of questions. Knows no index: it
only turns a word into its stem and into the numbers of its groups.
"""

from __future__ import annotations

import re
from functools import cache

_GROUPS = """
cost price fee charge pay payment expensive cheap much money free bill rate dear afford pound pounds euro dollars spend
pay card cash credit debit contactless cheque visa transfer invoice
discount reduction cheaper reduced concession student pensioner senior unemployed less bargain deal offer
open opening opened unlocked start begin available hours morning early
close closed closing shut locked end finish late evening
hour hours time clock when until till o'clock half past noon midday lunch afternoon evening morning tonight am pm
day days weekday weekdays monday tuesday wednesday thursday friday week working
weekend saturday saturdays sat sunday sundays sun
holiday holidays christmas easter year's bank boxing eve festive
where address place find located location situated street road way map directions come reach
arrive arrival come visit drop turn show call appear pop
phone telephone number call ring reach contact mobile dial
contact email mail write message reach touch letter
bus train tram transport station stop coach public
park parking car carpark drive driving vehicle space
bike bicycle cycle cycling cyclist rack two-wheeler
toilet toilets loo bathroom restroom washroom lavatory gents ladies
wheelchair disabled disability ramp lift step steps stairs access accessible pram pushchair buggy elevator mobility walk
child children kid kids toddler baby young son daughter family little boy girl junior youngster boys girls pupil
adult grown-up age old older years young youngest minimum
beginner beginners novice new never first start learn experience learner lesson lessons course taught teach
teacher coach trainer instructor tutor training train class lesson course teach
dog dogs puppy pet pets animal hound cat cats kitten rabbit hamster guinea furry
eat food meal snack snacks sandwich hungry lunch cafe bite breakfast dinner menu restaurant
drink drinks coffee tea water thirsty cafe beverage kettle cup
bread loaf roll rolls bun baguette sourdough
cake cakes birthday wedding pastry tart sweet
allergy allergic gluten wheat nut nuts vegan dairy vegetarian egg ingredient ingredients contain coeliac
hello hi hey hiya greetings morning evening afternoon good there anybody
thanks thank thx cheers grateful appreciate ta
bye goodbye farewell later see ciao
help helper volunteer volunteers assist assistance lend hand support pitch
job work vacancy hire hiring employ employment career staff apprentice position wage
join joining member membership sign register enrol registration become enlist subscribe application apply
leave cancel quit resign membership end stop terminate withdraw cancellation off
book booking reserve reservation appointment slot hold arrange schedule place advance
appointment turn walk-in wait queue unannounced without spontaneous just
wait waiting long queue ready quick fast soon finish finished take
ready done finished collect pick fetch collection
borrow lend loan lent lending hire rent rental take home period issue
return bring back give hand returned drop
late overdue fine fines forgot behind delay penalty missed deadline
extend extension renew renewal longer prolong keep more
lost lose missing mislaid misplaced gone find found left forgot forgotten
lost-property umbrella left behind forgot forgotten found mislaid
damage damaged broken break broke torn spoiled ruined spilled wet smashed cracked snapped
repair mend fix fixing repaired service servicing maintenance overhaul check tune mechanic
brake brakes stop stopping squeak squeal pads slow
tyre tire tyres puncture flat tube inner air pump inflate pressure leak
wheel wheels rim spoke spokes buckled wobble bent true
chain gear gears shift shifting skip slip derailleur cog sprocket oil grease
battery electric e-bike motor charge charging power
lamp light lights dark bright bulb night reflector torch
lock locks thief theft steal stolen secure security
helmet head hat protection safety safe
seat saddle sit sore seats comfortable uncomfortable
second-hand used secondhand pre-owned old sell selling trade exchange buy part
buy purchase sell stock get shop sale order have shopping acquire
order ordered delivery deliver delivered ship shipping send post home bring parcel courier
return exchange refund money back swap unhappy wrong fit change guarantee warranty
guarantee warranty faulty broken defect
gift present voucher token certificate birthday surprise
donate donation give gift gifts unwanted bring accept
size big large small fit tall height measure measurements
wash clean cleaning dirty mud muddy polish tidy shower
clothes wear clothing dress kit shoes jacket outfit put shorts
weather rain raining storm wind windy snow ice icy frost cold wet
swim swimming swimmer water fall capsize drown
boat boats row rowing scull oar oars rower eight crew
race races regatta compete competition event contest tournament competitive
team crew squad group club
computer computers pc laptop internet web online surf wifi wi-fi wireless network connect password
wifi wi-fi wireless wlan network password connection
print printer printing copy copies copier photocopy photocopier scan scanner paper page
quiet silent silence study studying noise peace desk revise exam concentrate homework
room rooms hall space meeting hire venue
party celebrate celebration birthday event
story stories tale reading read rhyme
film films movie movies dvd dvds video cinema disc
music cd cds listen song record sound audio audiobook audiobooks
magazine magazines newspaper newspapers paper press journal news
ebook ebooks e-book digital kindle tablet download reader electronic
language languages foreign french german spanish polish english translate
history local old archive past ancestors family map records genealogy
large print eyes eyesight glasses blind sight see
game games toy toys play board puzzle
garden plant seed seeds plants grow
photo picture photograph camera pictures snap
card ticket pass id identification passport proof document documents paper papers
change address moved moving move new house flat
item items book books novel novels thing things volume title
many number most limit maximum allowed few count much
buy suggest suggestion recommend propose wish request want order title get
complain complaint unhappy problem rude feedback manager boss angry
manager boss owner charge responsible person runs chief head chair
vet doctor surgeon nurse clinic practice medical treatment
sick ill unwell poorly vomit vomiting throwing diarrhoea symptoms disease
emergency urgent urgently immediately bleeding hit accident dying night
vaccine vaccination vaccinate vaccinated jab jabs injection shot booster immunise
neuter neutered neutering spay spayed castrate castration sterilise snip
microchip chip chipped tag chipping identify
flea fleas tick ticks worm worms worming parasite scratch itch itching bites
tooth teeth dental mouth gum breath dentist
claw claws nail nails clip trim cut paw
operation surgery op operate anaesthetic stitches operated procedure
fast fasting empty stomach before food eat night breakfast
medicine medication pills tablets drug tablet prescription prescribe dose
insurance insured insure policy claim cover covered insurer
death dead die died dying sleep euthanasia farewell put goodbye end
weight fat overweight diet slim heavy thin kilos feed
travel abroad trip journey passport overseas border foreign holiday
stay overnight board boarding kennel care holiday look
test tests blood sample result results lab x-ray scan
try trial taster taste sample test
guest friend friends visitor visitors bring someone mate
key keys door code entrance
locker lockers store storage bag belongings valuables bags
dark night winter season summer autumn spring
fit fitness strong strength gym train exercise muscles machine
fresh today yesterday leftover left old baked
afternoon evening end leftover reduced
name called who
"""
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve twenty thirty hundred dozen couple"
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ENDINGS = (
    ("ies", "y"),
    ("ing", ""),
    ("ed", ""),
    ("ers", ""),
    ("er", ""),
    ("es", ""),
    ("s", ""),
    ("ly", ""),
    ("e", ""),
)
_SHORTEST_STEM = 3


def find_words(text: str) -> list[str]:
    """The words of a text in lower case, as they stand."""
    return _WORD.findall(text.lower().replace("’", "'"))


@cache
def stem(word: str) -> str:
    """A word without the endings of English that change its number or tense; the same for "closed" and "closing"."""
    word = word.removesuffix("'s").replace("'", "")
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM and not word.endswith("ss"):
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > _SHORTEST_STEM and word[-1] == word[-2] and word[-1] not in "aeiousl":
        word = word[:-1]  # "stopping" and "stop".
    return word[:-1] + "i" if word.endswith("y") else word


def find_groups(stemmed: str) -> tuple[int, ...]:
    """The numbers of the groups that a stem is in."""
    return _groups_by_stem().get(stemmed, ())


@cache
def _groups_by_stem() -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for number, line in enumerate([*_GROUPS.strip().splitlines(), _NUMBERS]):
        for word in dict.fromkeys(stem(word) for word in line.split()):
            found.setdefault(word, []).append(number)
    return {word: tuple(numbers) for word, numbers in found.items()}
