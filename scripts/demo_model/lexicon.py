"""What everyday words mean, written by hand: verbs, adjectives, feelings, places, and things of nature."""


def table(text: str) -> dict:
    rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return {row[0]: row[1:] for row in rows}


# verb | what one needs | to what end | what happens when you do it | when people do it
VERBS = table("""
run|good shoes and some space|to get somewhere fast or just for fun|your heart beats fast and you feel strong|when they play or when they are late
jump|strong legs|to reach something high or to have fun|you are in the air for a moment|when they play or when they are happy
swim|water and a swimsuit|to cross the water, to cool down or to have fun|the water carries you and your body gets strong|in summer, when it is warm
fly|wings or a plane|to travel far or to see the land from above|you are high above the houses and trees|when they travel far away
climb|strong arms and legs|to get up high and look around|you can see far from the top|when they play in trees or go to the mountains
dance|music and a little space|to move with the music and to be happy|your body moves with the music and you feel happy|at parties and when they hear good music
sing|a voice and a song|to make music and to be happy|you make music with your voice and often feel better|when they are happy and when they are together
laugh|something funny|to show that they are happy|you feel light and happy|when something is funny
cry|nothing but tears|to let their sadness out|tears come out of your eyes, and later you feel better|when they are sad or hurt
smile|only a face|to show that they are happy and friendly|other people smile back at you|when they are happy or meet a friend
play|a toy or a friend|to have fun and to learn new things|the time goes by very fast|when the work is done
hide|a good place behind or under something|to stay safe or to play a game|nobody can see you for a while|when they play hide and seek
find|good eyes and some patience|to get back what was lost|you are glad, because it is not lost any more|when they look for something carefully
look|open eyes|to see what is around them|you see many small things|when something is interesting
help|a kind heart and some time|to make things easier for somebody|somebody is thankful and you feel good|when somebody has a problem
share|something that you have|to make somebody else happy too|everyone has something and nobody is left out|when they eat or play together
give|something that you have|to make somebody happy|somebody smiles and says thank you|at birthdays and when somebody needs something
take|your hands|to have something that they need|you have it in your hands|when they need something
make|an idea and some time|to have something new|you can be proud of what you made|when they have an idea
build|blocks, wood or stones|to have a house, a bridge or a tower|small pieces become something big|when they need a house or want to play
paint|a brush, paint and paper|to make a picture with many colors|the white paper gets full of color|when they want to make something beautiful
draw|a pencil and paper|to show what they see or think|a picture grows on the paper|when they have an idea for a picture
read|a book and good light|to learn something or to enjoy a story|you see the story in your head|in the evening or at school
write|a pencil and paper|to keep their words for later|your thoughts stay on the paper|at school or when they send a letter
cook|a pot, a stove and good food|to have a warm meal|the food gets warm, soft and tasty|before lunch and dinner
bake|flour, butter, sugar and an oven|to make bread and cakes|the whole house smells good|before a birthday or on a Sunday
eat|food and a plate|to get strength and to grow|you are not hungry any more|in the morning, at noon and in the evening
drink|a cup and some water|to stay healthy and not be thirsty|you are not thirsty any more|when they are thirsty
sleep|a quiet place and a soft bed|to rest the body and the brain|your body rests and you get new strength|at night
dream|only sleep|to live through the day once more in the head|you see pictures and stories in your sleep|when they sleep
wake|a good night before|to begin a new day|you open your eyes and the day begins|in the morning
walk|two feet and good shoes|to go from one place to another|you see many things on the way|when they go to school or to the park
ride|a horse or a bicycle|to get somewhere without walking|the wind blows in your face|when the way is long
drive|a car and a grown-up who has learned it|to get to places that are far away|you get to a far place quickly|when they go to work or on a trip
sail|a boat and some wind|to cross the water with the wind|the wind pushes the boat over the water|on a windy day at the lake or at sea
fish|a rod and a lot of patience|to catch fish to eat|you sit by the water and wait|in the morning, when it is quiet
dig|a shovel|to make a hole or to find something|a hole gets deeper and deeper|in the garden or at the beach
plant|a seed, soil and water|to grow flowers and food|after some time something green comes out of the ground|in spring
grow|food, water and time|to become big and strong|you get a little taller every year|all the time while they are young
pick|your hands and a basket|to bring home flowers or fruit|your basket gets full|when the fruit is ripe
carry|strong arms or a bag|to bring things from one place to another|your arms get strong|when they come home from the shop
throw|a ball and some space|to play or to bring something far away|the ball flies through the air|when they play ball
catch|quick hands|to play ball or to stop something from falling|you hold it in your hands|when somebody throws a ball to them
kick|a ball and one good foot|to play football|the ball rolls or flies away|when they play football
push|strong arms|to move something heavy|the thing moves away from you|when something heavy is in the way
pull|strong arms or a rope|to bring something closer|the thing comes closer to you|when they want to move a wagon
open|a hand or a key|to see what is inside or to go in|you can see what is inside|when they come to a door or get a gift
close|only a hand|to keep something safe or warm|nothing can get in or out|when they leave the house or when it is cold
break|not much, so be careful|to make small pieces of something big|one thing becomes two or more pieces|when they are not careful
fix|some tools and some patience|to make a broken thing work again|a broken thing works again|when something is broken
wash|soap and water|to get clean|the dirt goes away|before they eat and after they play
clean|water, soap and a cloth|to make things nice and healthy|everything looks bright and nice|when a room is dirty
dry|a towel or the sun|to get the water off|the water goes away|after a bath or after the rain
hug|two arms and somebody you like|to show that they like somebody|both of you feel warm and loved|when they meet or when somebody is sad
kiss|somebody that you love|to show love|somebody feels that you love them|when they say good night
wave|one hand|to say hello or goodbye|somebody far away sees you|when a friend comes or goes
call|a voice or a phone|to talk to somebody who is not near|somebody hears you and answers|when they want to talk to a friend
shout|a loud voice|to be heard from far away|everyone hears you|when somebody is far away or in danger
whisper|a quiet voice|to tell a secret or not to wake somebody|only the one next to you can hear it|when somebody is asleep
listen|two ears and some time|to understand other people|you learn something new|when somebody tells a story
talk|words and somebody who listens|to share their thoughts|you learn what the other one thinks|when they are together
ask|a question|to learn something new|somebody gives you an answer|when they do not know something
answer|a good idea of what was asked|to help somebody who asked|the other one knows more than before|when somebody asks them something
learn|time and some patience|to know and to do more|you know more than yesterday|at school and every day
teach|patience and something that you know well|to help others to learn|somebody learns something new|in a school or at home
remember|a good head or a little note|to keep good days in mind|you see it again in your head|when they look at old pictures
forget|nothing at all|to have room for new things|it is gone from your head for a while|when they have too much to do
wish|only a dream|to have something nice to look forward to|you think of something nice|at birthdays and when they see a star
hope|a little courage|to feel better when things are hard|you feel that it will be good in the end|when things are hard
wait|patience|to get something that takes time|the time goes by slowly|at the bus stop or at the doctor
watch|open eyes|to see how something is done|you see what happens|when something interesting happens
follow|somebody who knows the way|to get to the right place|you go the same way as the other one|when they do not know the way
chase|fast legs|to catch somebody in a game|you run fast and get out of breath|when they play tag
visit|a friend and some time|to spend time with somebody they like|you have a good time together|on the weekend or on a birthday
thank|only two words|to show that they are glad|the other one is happy that you saw it|when somebody was kind to them
""")

# adjective | what it means | how to be more so | three things that are so
ADJECTIVES = table("""
happy|you feel good inside and want to smile|Do something that you love, and be with your friends.|a birthday, a sunny day and a hug
sad|you feel heavy inside and want to cry|It is better to be happy. Talk to a friend when you feel sad.|a goodbye, a broken toy and a lost kitten
brave|you do the right thing even when you are scared|Try one small thing that scares you a little, every day.|a firefighter, a knight and a lion
shy|you feel a little afraid of new people|You need not be shy. Just smile and say hello.|a deer, a mouse and a new child in school
kind|you are good to other people and help them|Help somebody every day and use friendly words.|a smile, a gift and a good friend
clever|you learn fast and have good ideas|Read books, ask questions and try things out.|a fox, an owl and a crow
funny|you make other people laugh|Tell a joke and laugh about yourself.|a clown, a joke and a monkey
lazy|you do not like to work or to move|It is good to rest, but it is better to do your work first.|a sleepy cat, a slow snail and a long Sunday
busy|you have a lot to do|Make a list of things to do and begin with the first.|a bee, an ant and a market
hungry|your stomach is empty and you want to eat|Play outside. That makes everyone hungry.|a wolf, a baby bird and a boy before lunch
tired|you need to rest or sleep|Run and play all day, and you will be tired in the evening.|a worker, a baby and a dog after a long walk
angry|you feel hot inside because something is not right|It is better to be calm. Take a deep breath.|a storm, a wasp and a lion
scared|you think that something bad can happen|It is better to be brave. Hold the hand of a friend.|a mouse, a rabbit and a lost child
lonely|you wish that somebody was with you|You need not be lonely. Call a friend or say hello to somebody.|a small island, an empty house and a lost puppy
proud|you are glad about something that you did well|Work hard at something until you can do it.|a winner, a peacock and a mother
quiet|you make no noise, or only a little|Speak softly and listen to others.|a mouse, a library and the night
loud|you make a lot of noise|Take a deep breath and use your whole voice.|a drum, thunder and a lion
gentle|you are soft and careful with others|Speak softly and touch things with care.|a lamb, a mother and a warm wind
big|you take up a lot of space|Eat well and wait. You grow a little every year.|an elephant, a whale and a mountain
small|you do not take up much space|You need not be smaller. You are just right.|an ant, a button and a seed
little|you are not big|You need not be smaller. You are just right.|a mouse, a bean and a pebble
tiny|you are very, very small|Nobody can make themselves tiny, but you can hide well.|an ant, a seed and a grain of sand
tall|you reach high up|Stand up straight, eat well and sleep well.|a giraffe, a tower and a tree
long|there is a lot from one end to the other|Only time can make things longer.|a snake, a rope and a river
short|there is not much from one end to the other|You need not change. Short is fine.|a pencil, a thumb and a tail of a rabbit
round|you have the shape of a ball or a ring|You could roll up like a hedgehog.|a ball, the moon and a coin
soft|you are nice to touch and not hard|Be gentle, and use soft words.|a pillow, a kitten and a feather
hard|you do not bend or break easily|Eat well and play sports to get strong.|a stone, a nut and ice
warm|you are a little hot, and it feels good|Put on a sweater or drink some tea.|the sun, a blanket and tea
cold|you have little heat|Take off your coat or eat some ice cream.|snow, ice and the winter wind
hot|you have a lot of heat|Sit near the fire or in the sun.|fire, soup and the sun
wet|you have water on you|Stand in the rain or jump into a pool.|rain, the sea and a fish
dry|you have no water on you|Take a towel, or stay under an umbrella.|sand, paper and the desert
old|you have lived or lasted for a long time|You only have to wait. Everyone gets older.|a turtle, a castle and a grandfather
new|you have only just begun or been made|Learn something that you have never done before.|a baby, today and a gift
young|you have not lived for many years|Stay curious and play a lot. That keeps people young.|a baby, a puppy and a kitten
fast|you need only a little time|Practice running every day.|a horse, a train and the wind
slow|you take a lot of time|Take a deep breath and do one thing after the other.|a snail, a turtle and a lazy river
strong|you can lift and carry heavy things|Eat well, move a lot and sleep enough.|a bear, an ox and a rope
weak|you do not have much strength|It is better to be strong. Rest and eat well.|a thin branch, a baby bird and a cup of paper
bright|you give or have a lot of light|Smile, and let the sun in.|the sun, a lamp and a star
dark|there is little or no light|Turn off the lamp or close the window.|the night, a cave and a shadow
shiny|you throw back the light|Wash and rub a thing, and it will shine.|a coin, a star and a ring
dirty|you have mud or dust on you|Just play in the mud!|mud, old boots and a pig
clean|there is no dirt on you|Wash with soap and water.|soap, a new shirt and fresh snow
sweet|you taste like sugar, or you are very nice|Say nice things and give a hug.|honey, candy and a ripe apple
sour|you taste like a lemon|It is better to be sweet. Smile a little.|a lemon, a green apple and vinegar
sleepy|you want to go to bed|Read a quiet book in bed and breathe slowly.|a koala, a baby and a cat in the sun
curious|you want to know and see new things|Ask many questions and look at things closely.|a kitten, a monkey and a child
friendly|you are nice to other people|Smile, say hello and listen.|a dog, a dolphin and a good neighbor
careful|you look out so that nothing goes wrong|Take your time and look twice.|a doctor, a mother and a cat on a roof
honest|you tell the truth|Tell the truth, even when it is hard.|a good friend, a mirror and a child
lucky|good things happen to you|Look for the good things in every day.|a ladybug, a winner and a four-leaf clover
magic|you can do what nobody can explain|You can learn some tricks with cards and coins.|a wand, a wish and a fairy
secret|only few people know about you|Do not tell everyone everything.|a hidden door, a treasure and a whisper
broken|you are in pieces or do not work|It is better to be whole. Broken things can be fixed.|an old cup, a lost wheel and a cracked egg
lost|nobody knows where you are|It is better to be found. Stay where you are and call for help.|a key, a sock and a puppy
empty|there is nothing inside|Take everything out, and it will be empty.|a box, a cup and a nest in winter
full|there is no more room inside|Put in more and more until there is no room.|a basket, a glass and the moon
heavy|you are hard to lift|Only a lot of food makes you heavier.|a stone, an elephant and a truck
light|you are easy to lift|Carry less, and you will feel light.|a feather, a leaf and a balloon
pretty|you are nice to look at|Smile! That makes everyone pretty.|a flower, a rainbow and a butterfly
strange|people do not know anyone like you|Be yourself. Everyone is a little strange.|a dream, a noise at night and a new place
beautiful|people love to look at you|Be kind and smile. That is the best beauty.|a rainbow, a flower and a starry sky
silly|you do funny things that make no sense|Make a funny face or wear two hats.|a clown, a monkey and a joke
grumpy|you are in a bad mood|It is better to be happy. Sleep well and eat something good.|a bear in spring, a wet cat and a tired child
polite|you say please and thank you|Say please and thank you, and let others talk first.|a bow, a thank-you letter and a good guest
patient|you can wait without getting angry|Take a deep breath and count to ten.|a teacher, a fisherman and a gardener
generous|you like to give and to share|Share your toys and your food with others.|a grandmother, a good friend and an apple tree
playful|you love to play|Try a new game every day.|a kitten, a puppy and a dolphin
noisy|you make a lot of noise|Play the drum! But not at night.|a drum, a market and a crow
fluffy|you are soft and full of hair or feathers|Brush your hair, and it will get fluffy.|a chick, a cloud and a lamb
smooth|you have no bumps|Rub a thing with sand for a long time.|glass, ice and a wet stone
""")

COLORS = {
    "red": "an apple, a rose and a fire truck", "blue": "the sky, the sea and a blueberry", "green": "grass, a frog and a leaf",
    "yellow": "the sun, a lemon and a chick", "white": "snow, milk and a swan", "black": "the night, a crow and coal",
    "brown": "a bear, chocolate and a tree trunk", "golden": "a crown, a ring and honey", "silver": "a coin, a spoon and the moon",
    "pink": "a pig, a rose and a flamingo", "purple": "a plum, a grape and a violet", "orange": "a carrot, a pumpkin and an orange"}

# feeling | what makes people feel so | what to do
FEELINGS = table("""
happy|good friends, good news and sunny days|Enjoy it, and share it with somebody.
sad|a goodbye, a fight or a loss|Talk to somebody who loves you. A hug can help.
angry|unfair things and mean words|Take a deep breath and count to ten. Then say what is wrong.
scared|the dark, loud noises and things that they do not know|Take a slow breath and hold the hand of somebody you trust.
lonely|a long time without friends|Call a friend, or say hello to somebody new.
tired|a long day and too little sleep|Lie down and rest. A good sleep makes you strong again.
bored|a long day with nothing to do|Read a book, draw a picture or go outside and play.
proud|hard work that went well|Enjoy it, and thank the people who helped you.
nervous|a test, a show or a new place|Breathe slowly and think of something that you can do well.
excited|a trip, a party or a surprise|Tell somebody about it! Waiting is easier together.
sick|cold, wet feet and tiny germs|Rest in bed, drink a lot and see a doctor if it gets worse.
worried|things that may go wrong|Tell somebody about it. Two can carry it better than one.
shy|new people and many eyes|Smile and say hello. One small step is enough.
hungry|a long time without food|Eat something good, such as an apple or a sandwich.
sleepy|a long day and a warm bed|Go to bed, close your eyes and breathe slowly.
calm|soft music, a walk and deep breaths|Enjoy it. Sit down and look at the sky.
""")

# place | three things in it | who lives or stays there
PLACES = table("""
forest|trees, mushrooms and berries|Foxes, deer, owls and squirrels
river|water, stones and fish|Fish, beavers and otters
lake|water, fish and little boats|Fish, ducks and frogs
sea|waves, shells and fish|Whales, sharks, crabs and many fish
beach|sand, shells and waves|Crabs and seagulls
mountain|rocks, snow and fresh air|Eagles, goats and bears
hill|grass, stones and flowers|Sheep, rabbits and hedgehogs
valley|a river, meadows and farms|Farmers, cows and deer
village|houses, gardens and a small shop|People who know each other
town|streets, shops and houses|Many people, and some cats and dogs
city|tall houses, buses and parks|Very many people
farm|a barn, a tractor and fields|A farmer with cows, pigs and hens
garden|flowers, vegetables and butterflies|Snails, worms, bees and hedgehogs
park|trees, benches and a pond|Birds, ducks and squirrels
school|books, desks and children|Nobody lives there, but children learn there
house|a kitchen, beds and a door|People, and sometimes a cat or a dog
castle|towers, thick walls and a gate|Long ago, a king and a queen
cave|stones, dark corners and cool air|Bats and sometimes a bear
island|sand, trees and a beach all around|Seagulls, crabs and a few people
desert|sand, stones and a hot sun|Camels, snakes and lizards
jungle|tall trees, vines and bright flowers|Monkeys, parrots, tigers and snakes
field|corn, grass and flowers|Mice, rabbits and birds
meadow|grass, flowers and bees|Butterflies, bees and mice
pond|water, reeds and little fish|Frogs, ducks and fish
barn|hay, tools and animals|Cows, mice and owls
kitchen|a stove, pots and a table|Nobody lives there, but people cook there
bedroom|a bed, a pillow and a lamp|Nobody but the person who sleeps there
attic|old boxes, dust and a small window|Sometimes mice and bats
library|books, shelves and chairs|Nobody lives there, but a librarian works there
museum|pictures, statues and old things|Nobody lives there, but guards watch over it
zoo|lions, monkeys and elephants|Animals from all over the world
market|fruit, bread and many people|Nobody lives there, but people sell food there
bakery|bread, cakes and an oven|Nobody lives there, but a baker works there
shop|toys, food and a counter|Nobody lives there, but a shopkeeper works there
street|cars, houses and trees|People in their houses
bridge|stones, a rail and water below|Sometimes birds live under it
road|cars, trucks and signs|Nobody lives on it, but drivers use it
harbor|ships, ropes and seagulls|Sailors and fishermen
tower|many steps, a bell and small windows|Sometimes owls and bats
hospital|beds, doctors and nurses|People who are ill stay there for a while
playground|a slide, a swing and sand|Nobody lives there, but children play there
station|trains, a clock and travelers|Nobody lives there, but people wait there
circus|a big tent, clowns and music|Clowns, dancers and singers
train|seats, windows and travelers|Nobody lives there, but people travel in it
bus|seats, a driver and big windows|Nobody lives there, but people ride in it
boat|ropes, a sail and a small cabin|A sailor or a fisherman
ship|sails, cabins and a big wheel|Sailors and their captain
treehouse|boards, a ladder and leaves|Children play there, and birds live near it
nest|eggs, feathers and thin branches|Birds and their chicks
tent|a blanket, a lamp and a bag|People who sleep outside for a while
cottage|a fireplace, a small bed and flowers|A family or an old couple
cabin|a stove, a bed and wooden walls|A hunter, or people on a trip
""")

# name | what it is | what it looks like | where it is | why it is good to have
NATURE = table("""
sun|a very big and hot star|round, yellow and very bright|in the sky by day|It gives us light and keeps us warm.
moon|a big ball of rock that goes around the earth|round and pale|in the sky at night|It shines at night and helps us to see.
star|a sun that is very far away|like a tiny light|in the sky at night|Sailors found their way by the stars.
sky|the space above us|blue by day and black at night|above our heads|Birds and clouds move in it.
cloud|many tiny drops of water in the sky|white or gray and soft|in the sky|It brings us rain.
rain|water that falls from the clouds|like many small drops|outside, under dark clouds|It gives water to plants, animals and people.
snow|frozen water that falls from the sky|white and soft|outside in winter|You can build a snowman from it.
wind|air that moves|like nothing, but you can feel it|outside, on hills and at sea|It moves boats and makes kites fly.
storm|a very strong wind with rain|dark and wild|outside, when the weather is bad|After it, the air is fresh and clean.
thunder|the loud sound that follows lightning|like nothing, but you can hear it|in a storm|It tells us to go inside.
rainbow|a bow of many colors in the sky|red, orange, yellow, green, blue and purple|in the sky when rain and sun meet|It makes people smile.
tree|a very big plant with a trunk|tall, with branches and leaves|in forests, parks and gardens|It gives us wood, fruit and fresh air.
leaf|a thin green part of a plant|flat and green|on trees and other plants|It catches the light and makes food for the plant.
flower|the colorful part of a plant|bright, with soft petals|in gardens and meadows|It makes seeds, and bees love it.
rose|a flower with thorns|red, pink, white or yellow|in gardens|It smells very good and makes a nice gift.
grass|a plant with thin green leaves|thin and green|in fields and parks|Cows and sheep eat it.
seed|a small thing from which a plant grows|small and hard|in fruit and in flowers|A new plant grows from it.
root|the part of a plant under the ground|long and thin|under the ground|It drinks water and holds the plant.
branch|an arm of a tree|long and made of wood|on trees|Birds build their nests on it.
stone|a small piece of rock|hard and gray or brown|on the ground and in rivers|People build walls with it.
rock|a very hard part of the earth|big, hard and gray|in the mountains|People build houses and roads with it.
sand|very many tiny pieces of stone|yellow and soft|at the beach and in the desert|You can build castles with it.
mud|wet soil|brown and soft|on the ground after rain|Pigs roll in it to stay cool.
water|a clear liquid without a taste|clear|in rivers, lakes and seas|All animals and plants need it to live.
ice|frozen water|clear and hard|outside in winter|It keeps food and drinks cold.
fire|heat and light from something that burns|red and yellow|in a fireplace or a candle|It keeps us warm, but do not touch it.
smoke|a gray cloud that comes from a fire|gray and thin|over a fire|It shows where a fire is.
shadow|a dark shape where the light cannot go|dark and flat|behind things in the light|It gives us a cool place on a hot day.
wave|water that goes up and down|like a small hill of water|in the sea|You can jump over it at the beach.
shell|the hard home of a sea animal|hard, and often white or pink|at the beach|It keeps a soft animal safe.
feather|a light part of a bird|soft and light|on birds|It keeps a bird warm and helps it to fly.
egg|a thing with a shell that a bird lays|round and white or brown|in a nest or in the kitchen|A chick can grow in it, and people eat it.
acorn|the nut of an oak tree|small and brown, with a little hat|under oak trees|Squirrels eat it, and a tree can grow from it.
pinecone|the fruit of a pine tree|brown and dry|under pine trees|It keeps the seeds of the tree safe.
mushroom|a small plant-like thing without leaves|like a little umbrella|in the forest|Some are good to eat, but some are poisonous.
berry|a small soft fruit|small, round and red or blue|on bushes|It is sweet and healthy.
apple|a round fruit|red, green or yellow|on apple trees and in the market|It is healthy and tastes good.
pear|a sweet fruit|green or yellow|on pear trees|It is sweet and full of juice.
plum|a small fruit with a stone|round and purple|on plum trees|People make jam and cakes from it.
cherry|a small fruit with a stone|round and red|on cherry trees|It is sweet, and birds love it, too.
orange|a round and juicy fruit|round and orange|on trees in warm countries|Its juice is healthy.
banana|a long and soft fruit|long and yellow|in warm countries and in the shop|It gives you strength.
lemon|a sour fruit|yellow|on trees in warm countries|Its juice makes good drinks.
grape|a small fruit that grows in bunches|small, round and green or purple|on vines|It is sweet, and people make juice from it.
strawberry|a soft and sweet fruit|red with tiny seeds|in gardens in summer|It tastes very good with cream.
pumpkin|a very big vegetable|round and orange|in fields in fall|You can make soup or a lantern from it.
carrot|a long vegetable|long and orange|under the ground in a garden|It is healthy, and rabbits love it.
potato|a vegetable from under the ground|round and brown|under the ground in a field|You can cook it in many ways.
corn|a tall plant with yellow seeds|tall and green, with yellow seeds|in fields|People and animals eat it.
nut|a seed in a hard shell|small, hard and brown|on trees and bushes|It gives you a lot of strength.
honey|a sweet food that bees make|golden and sticky|in hives and in the kitchen|It is sweet and good on bread.
""")
